"""The words of a stored answer: what two answers are compared by in audits."""

from __future__ import annotations

import logging

import msgspec

from thinkonce.entry import Entry, Form
from thinkonce.protocols.dialect import Asked
from thinkonce.protocols.registry import DIALECTS
from thinkonce.protocols.reply import decode_reply
from thinkonce.protocols.spoken import spoken

__all__ = ("words_of",)

log = logging.getLogger("thinkonce.semantic")


def words_of(entry: Entry) -> str | None:
    """A text is its own words; of a provider's answer, what it says; of other data, its JSON.

    None where there are none, or where what is stored cannot be read.
    """
    try:
        return _of_reply(entry) if entry.form == Form.REPLY else _of_value(entry)
    except Exception as error:
        log.debug("no words in an entry of %s: %s", entry.meta.scope, error)
        return None


def _of_reply(entry: Entry) -> str | None:
    dialect = DIALECTS.get(entry.meta.scope)
    if dialect is None:
        return None
    prepared = dialect.prepare(decode_reply(entry.payload))
    whole = Asked(stream=False)
    if not prepared.serves(whole):
        return None
    body = msgspec.json.decode(prepared.render(whole, None))
    return spoken(body) if isinstance(body, dict) else None


def _of_value(entry: Entry) -> str | None:
    value = entry.payload if entry.thaw is None else entry.thaw(entry.payload)
    if isinstance(value, str):
        return value
    said = spoken(value) if isinstance(value, dict) else None
    return msgspec.json.encode(value, order="sorted").decode() if said is None else said
