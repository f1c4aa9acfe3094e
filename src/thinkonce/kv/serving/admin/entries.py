"""`GET /kv/entries` and `/kv/entries/ID`: the prefix tree, for whoever may change it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from thinkonce.errors import RequestError
from thinkonce.kv.engine import KvEngine
from thinkonce.kv.prefix.branches import branches_of, chain_as_told, chain_to, named
from thinkonce.kv.reuse.stock import STOCK
from thinkonce.web.exchange import HttpError

__all__ = ("one_page", "shown")

_MOST, _USUAL = 1000, 100
_BEGINNING, _END = 2000, 200  # characters of a text that are shown
_STOCK = "the fixed text that documents are read behind; nobody wrote it in a prompt"


def one_page(engine: KvEngine, query: Mapping[str, str]) -> dict[str, Any]:
    """Branches behind that of `after`, `limit` at most, each behind its parent; `next` is what to
    ask for after them, "" at the end. Raises RequestError.
    """
    limit, after = _limit(query.get("limit")), query.get("after", "")
    blocks = engine.listed()
    each = branches_of(blocks)
    if after and not any(branch.id == after for branch in each):
        raise RequestError("after", after, "the id of a branch that is there; begin anew")
    page = list(islice(each, limit))
    is_over = next(each, None) is None
    return {
        "entries": page,
        "next": "" if is_over or not page else page[-1].id,
        "blocks": len(blocks),
        "memory_bytes": sum(block.memory for block in blocks.values()),
        "disk_bytes": sum(block.disk for block in blocks.values()),
    }


def shown(engine: KvEngine, tokenizer: Any, digits: str) -> dict[str, Any]:
    """The chain that ends with the block whose name begins with `digits`, and its text's ends.

    Raises RequestError, HttpError 404 and 409.
    """
    blocks = engine.listed()
    alike = named(blocks, digits)
    if not alike:
        raise HttpError(404, f"no block begins with {digits:.64}", code="not_found")
    if len(alike) > 1:
        raise HttpError(409, f"{len(alike)} blocks begin with {digits}", code="ambiguous")
    chain = chain_to(blocks, alike[0])
    tokens = engine.tokens_of([block.id for block in chain])
    text, bare = (
        str(tokenizer.decode(list(tokens), skip_special_tokens=bare)) for bare in (False, True)
    )
    ours = {"what": _STOCK} if bare and STOCK.startswith(bare) else {}
    return {**ours, **chain_as_told(blocks, alike[0]), **_ends_of(text)}


def _ends_of(text: str) -> dict[str, Any]:
    """As the model reads it, special tokens included; `cut` characters in the middle left out."""
    if len(text) <= _BEGINNING + _END:
        return {"text": text, "cut": 0, "ends": ""}
    cut = len(text) - _BEGINNING - _END
    return {"text": text[:_BEGINNING], "cut": cut, "ends": text[-_END:]}


def _limit(text: str | None) -> int:
    if text is None:
        return _USUAL
    if not text.isascii() or not text.isdigit() or len(text) > 4 or not 0 < int(text) <= _MOST:
        raise RequestError("limit", text[:100], f"a number from 1 to {_MOST}")
    return int(text)
