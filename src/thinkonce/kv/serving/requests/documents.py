"""Documents that a question is about, as marked parts of the message that asks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from thinkonce.errors import RequestError
from thinkonce.settings import KvMethod

__all__ = ("Document", "with_documents")

Document = str | Mapping[str, str]
"""A text, or its `text` and the `id` by which it is purged."""


class _Given(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    text: str
    id: str = ""


def with_documents(
    messages: Sequence[dict[str, Any]],
    documents: Sequence[Document],
    reuse: KvMethod | None,
    fields: Mapping[str, Any],
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The messages with the documents in front of what the user says last, and the fields of a
    chat completion with `reuse` in its `kv_cache`. Raises RequestError.
    """
    if isinstance(messages, str | Mapping):
        raise RequestError("messages", messages, "a list of messages, with a role and content each")
    if isinstance(documents, str | Mapping):
        accepts = "a list of documents: each a text, or its text and its id"
        raise RequestError("documents", documents, accepts)
    said, asked = list(messages), dict(fields)
    if reuse is not None:
        asked["kv_cache"] = {**(asked.get("kv_cache") or {}), "reuse": reuse}
    if not documents:
        return said, asked
    places = [place for place, message in enumerate(said) if message.get("role") == "user"]
    if not places:
        raise RequestError("messages", "no message of the user", "one, which documents belong to")
    content = said[places[-1]].get("content")
    rest = content if isinstance(content, list) else [{"type": "text", "text": content}]
    parts = [_part(place, document) for place, document in enumerate(documents)]
    said[places[-1]] = {**said[places[-1]], "content": [*parts, *rest]}
    return said, asked


def _part(place: int, document: Document) -> dict[str, Any]:
    given = {"text": document} if isinstance(document, str) else document
    try:
        found = msgspec.convert(given, _Given)
    except msgspec.ValidationError as wrong:
        accepts = 'a text, or {"id": "doc-7", "text": "..."}'
        raise RequestError(f"documents[{place}]", given, accepts) from wrong
    return {"type": "text", "text": found.text, "kv_cache": {"id": found.id}}
