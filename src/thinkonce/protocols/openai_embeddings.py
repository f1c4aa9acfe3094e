"""OpenAI's embeddings, taken apart: one vector is one answer, whatever batch it came in.

    {"input": ["a", "b"], ...}  ──►  "a", "b"  ──►  a vector each  ──►  {"data": [...]}

Vectors come as JSON numbers or as base64 of little-endian 32-bit floats, and each is made from the
other: https://platform.openai.com/docs/api-reference/embeddings. A vector kept as numbers is
rounded to 32 bits where base64 is asked for, as the provider does.
"""

from __future__ import annotations

import base64
import sys
from array import array
from binascii import Error as NotBase64
from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import isfinite
from typing import Any

import msgspec

from thinkonce.protocols.batches import Batch
from thinkonce.protocols.bounds import all_keepable
from thinkonce.protocols.dialect import Asked
from thinkonce.protocols.estimate import estimate_tokens
from thinkonce.protocols.facts import TEXT, TEXTS, Facts, Schema
from thinkonce.protocols.reply import Reply, Shape
from thinkonce.protocols.splice import add, without

__all__ = ("OpenAIEmbeddings", "vector_in_form")

MOST_INPUTS = 2048  # https://platform.openai.com/docs/api-reference/embeddings/create
MOST_COMMON = 16 * 1024 * 1024  # bytes of what inputs have in common, times the inputs
FLOAT, BASE64 = "float", "base64"
_NOT_IDENTITY = ("input", "encoding_format", "kv_cache", "cache")
_encode = msgspec.json.Encoder().encode


class OpenAIEmbeddings:
    """See `batches.BatchDialect`. Stateless and thread-safe."""

    name = "embeddings"
    finish = "vector"
    facts = Facts(
        schema=Schema(
            "EmbeddingsRequest",
            "OpenAI's embeddings, cached input by input",
            {"input": TEXTS, "encoding_format": TEXT},
            ("model", "input"),
            {"input": ["one", "two"]},
            streams=False,
        ),
        operation="embeddings",
    )

    def asks(self, body: dict[str, Any]) -> Asked:
        model = body.get("model")
        # The same input gives the same vector: nothing here is drawn by chance.
        return Asked(model=model if isinstance(model, str) else "", temperature=0.0, body=body)

    def identity(
        self,
        body: dict[str, Any],
        *,
        context_aware: bool = True,
        ignore: frozenset[str] = frozenset(),
    ) -> dict[str, Any]:
        """What all items of a request have in common; each adds its own `input`."""
        identity = body.copy()
        form = identity.get("encoding_format")
        for name in (*_NOT_IDENTITY, *ignore):
            identity.pop(name, None)
        if form not in (None, FLOAT, BASE64):  # nothing is known of it, so it is never converted
            identity["encoding_format"] = form
        return identity

    def batch(self, body: dict[str, Any]) -> Batch | None:
        """None where `input` is nothing that can be taken apart: the upstream says what is wrong.

        A text, a list of texts, a list of token ids (one input), or a list of such lists. None,
        too, for what would take more than it is worth, see `is_too_large`.
        """
        given = body.get("input")
        if self.is_too_large(body):
            return None
        form = body.get("encoding_format") or FLOAT
        if not isinstance(form, str):
            return None
        if isinstance(given, str):
            return Batch([given], form)
        if not isinstance(given, list) or not given:
            return None
        if all(type(each) is int for each in given):
            return Batch([given], form)
        if all(isinstance(each, str) for each in given) or all(map(_is_ids, given)):
            return Batch(given, form)
        return None

    def is_too_large(self, body: dict[str, Any]) -> bool:
        """More inputs than OpenAI takes, or so much in common that their keys are too much."""
        given = body.get("input")
        if not isinstance(given, list) or len(given) < 2 or type(given[0]) is int:
            return False
        if len(given) > MOST_INPUTS:
            return True
        common = {name: value for name, value in body.items() if name != "input"}
        return len(_encode(common)) * len(given) > MOST_COMMON

    def members(self, batch: Batch) -> list[dict[str, Any]]:
        return [{"input": item} for item in batch.items]

    def with_items(self, raw: bytes, items: Sequence[Any]) -> bytes:
        """The request's bytes, asking for `items` only."""
        return add(without(raw, ("input",)), b'"input":' + _encode(items))

    def read(self, body: bytes, items: Sequence[Any]) -> list[Reply] | None:
        """None for anything but one vector for each of `items`."""
        try:
            whole = msgspec.json.decode(body, type=_Whole)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        vectors = sorted(whole.data, key=lambda vector: vector.index)
        places = [vector.index for vector in vectors]
        if whole.error is not None or places != list(range(len(items))):
            return None
        if not all_keepable((whole.model,)) or not all(map(_holds_numbers, vectors)):
            return None
        shares = _shares(whole.usage, items)
        return [
            Reply(
                status=200,
                content_type="application/json",
                shape=Shape.JSON,
                body=bytes(vector.embedding),
                usage_estimated=len(items) > 1,
                finishes=(self.finish,),
                model=whole.model,
                prompt_tokens=tokens,
            )
            for vector, tokens in zip(vectors, shares, strict=True)
        ]

    def join(self, replies: Sequence[Reply], form: str) -> bytes | None:
        """One answer of many vectors; None where one cannot take the form."""
        vectors = [vector_in_form(reply.body, form) for reply in replies]
        if None in vectors:
            return None
        data = b",".join(
            b'{"object":"embedding","index":%d,"embedding":%b}' % (place, vector)
            for place, vector in enumerate(vectors)
            if vector is not None
        )
        tokens = sum(reply.prompt_tokens for reply in replies)
        usage: dict[str, Any] = {"prompt_tokens": tokens, "total_tokens": tokens}
        if any(reply.usage_estimated for reply in replies):
            usage["estimated"] = True
        head = b'{"object":"list","data":[%b],"model":%b,"usage":%b}'
        return head % (data, _encode(replies[0].model), _encode(usage))


def _is_ids(given: Any) -> bool:
    return isinstance(given, list) and bool(given) and all(type(each) is int for each in given)


# -- the upstream's answer -------------------------------------------------------------------


class _Vector(msgspec.Struct):
    embedding: msgspec.Raw
    index: int = 0


class _Whole(msgspec.Struct):
    data: list[_Vector]
    model: str = ""
    usage: dict[str, Any] | None = None
    error: Any = None


def _holds_numbers(vector: _Vector) -> bool:
    text = bytes(vector.embedding)
    return len(text) > 2 and text[:1] in (b"[", b'"')


def _shares(usage: dict[str, Any] | None, items: Sequence[Any]) -> list[int]:
    """The tokens of each item; a batch's are counted together, and divided by length."""
    guesses = [max(_guess(item), 1) for item in items]
    total = (usage or {}).get("prompt_tokens") or (usage or {}).get("total_tokens")
    if type(total) is not int or not 0 < total < 2**53:
        return guesses
    whole = sum(guesses)
    ends = [total * upto // whole for upto in accumulate(guesses)]
    return [end - begin for begin, end in pairwise((0, *ends))]


def _guess(item: Any) -> int:
    return estimate_tokens(item) if isinstance(item, str) else len(item)


# -- an answer of our own --------------------------------------------------------------------


def vector_in_form(text: bytes, form: str) -> bytes | None:
    """`text`, a vector as JSON, in the form asked for; None where it cannot be had."""
    if form not in (FLOAT, BASE64):
        return text
    if (text[:1] == b'"') is (form == BASE64):
        return text
    try:
        return _as_floats(text) if form == FLOAT else _as_base64(text)
    except (msgspec.DecodeError, NotBase64, ValueError, OverflowError):
        return None


def _as_floats(text: bytes) -> bytes | None:
    raw = base64.b64decode(msgspec.json.decode(text, type=str), validate=True)
    if len(raw) % 4:
        return None
    numbers = array("f", raw)
    if sys.byteorder == "big":
        numbers.byteswap()
    # JSON has no word for the others.
    return _encode(numbers.tolist()) if all(map(isfinite, numbers)) else None


def _as_base64(text: bytes) -> bytes | None:
    numbers = array("f", msgspec.json.decode(text, type=list[float]))
    if not all(map(isfinite, numbers)):  # too large for 32 bits
        return None
    if sys.byteorder == "big":
        numbers.byteswap()
    return b'"%b"' % base64.b64encode(numbers.tobytes())
