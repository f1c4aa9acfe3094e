"""Whether a request's body can be read at all: JSON in UTF-8, of a bounded number of values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from thinkonce.engine.http import Head, HttpError
from thinkonce.errors import RequestError
from thinkonce.request.canonical import MalformedBody, Parsed, TooManyMembers, parse_body

__all__ = ("check_values", "read_json")

# Members of the body that the gateway itself reads: name -> types, and what to say.
_READ: Mapping[str, tuple[tuple[type, ...], str]] = {
    "model": ((str,), "a string"),
    "stream": ((bool, type(None)), "true or false"),
    "stream_options": ((dict, type(None)), "an object"),
}

# RFC 8259, 8.1: JSON between systems is UTF-8. A server that believes another name would read
# another question than the one the key is made of.
_CHARSET = re.compile(rb';\s*charset\s*=\s*"?([^";\s]*)', re.IGNORECASE)
_UTF8 = (b"utf-8", b"utf8")

# Arrays, objects and what is in them: a byte may become thirty when it is parsed, and is held
# for as long as the upstream is asked. A batch of token ids has 300,000 (OpenAI's limit).
MAX_VALUES = 1_000_000
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)


def read_json(call: Head, raw: bytes) -> Parsed:
    """The body of a request that may be served. Raises HttpError 400, 413 and 415."""
    _check_content_type(call)
    check_values(raw)
    parsed = _parse(raw)
    _check_members(parsed.body)
    return parsed


def _check_members(body: dict[str, Any]) -> None:
    for name, (types, accepts) in _READ.items():
        if name in body and type(body[name]) not in types:
            said = f"{name}: got {body[name]!r:.80}; it accepts {accepts}"
            raise HttpError(400, said, param=name)


def _parse(raw: bytes) -> Parsed:
    try:
        return parse_body(raw)
    except MalformedBody as error:
        raise HttpError(
            400,
            f"the body is not JSON: {error.problem} at line {error.line} column {error.column}",
            code="invalid_json",
            param="body",
        ) from error
    except TooManyMembers as error:
        raise HttpError(413, str(error), code="body_too_large", param="body") from error
    except RequestError as error:
        raise HttpError(400, str(error), param="body") from error


def check_values(raw: bytes) -> None:
    """Raises HttpError 413 for a body of more values than anybody means. No cost to small ones."""
    if len(raw) <= MAX_VALUES or _marks(raw) <= MAX_VALUES:
        return
    found = _marks(_STRING.sub(b"", raw))
    if found > MAX_VALUES:
        said = f"body: got {found} values; it accepts at most {MAX_VALUES}"
        raise HttpError(413, said, code="body_too_large", param="body")


def _marks(raw: bytes) -> int:
    return raw.count(b",") + raw.count(b"[") + raw.count(b"{")


def _check_content_type(call: Head) -> None:
    written = call.head.get(b"content-type")
    if written is None or written == b"application/json":
        return
    charset = _CHARSET.search(written)
    if b"json" in written.lower() and (charset is None or charset[1].lower() in _UTF8):
        return
    raise HttpError(
        415,
        f"content-type: got {written.decode('latin-1')!r:.80}; it accepts application/json, "
        "in UTF-8",
        param="content-type",
    )
