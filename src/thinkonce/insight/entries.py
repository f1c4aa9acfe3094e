"""An entry as people read it: what the command line and the admin API list.

Credentials and prompts are never part of it; the answer only where it is asked for.
"""

from __future__ import annotations

from math import inf
from typing import Any

import msgspec

from thinkonce.entry import Entry, Form
from thinkonce.protocols.reply import decode_reply

__all__ = ("FORMS", "EntryRow", "content_of", "row_of")


# Of `Entry.form`, by number.
FORMS = {number: name.lower() for name, number in vars(Form).items() if isinstance(number, int)}


class EntryRow(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a listing. Seconds and bytes; `ttl` is negative once expired, None: no expiry.

    `form` is how the answer is kept: plain, encoded, copied, reply or stream. `tenant` is the
    keyed hash that stands for a credential. `cost` is what making it again would cost, by which
    eviction weighs it: for the gateway's answers estimated US dollars (list price, else a typical
    one), for values of functions the seconds they took.
    """

    key: str
    form: str = ""
    scope: str
    model: str
    namespace: str
    tenant: str
    source: str
    label: str
    tags: tuple[str, ...]
    priority: str
    bytes: int
    tokens: int
    cost: float
    seconds: float
    age: float
    ttl: float | None


def row_of(entry: Entry, now: float) -> EntryRow:
    """`now`: wall clock."""
    meta = entry.meta
    return EntryRow(
        key=entry.digest.hex(),
        form=FORMS.get(entry.form, str(entry.form)),
        scope=meta.scope,
        model=meta.model,
        namespace=meta.namespace,
        tenant=meta.tenant,
        source=meta.source,
        label=meta.label,
        tags=meta.tags,
        priority=meta.priority,
        bytes=entry.payload_size,
        tokens=entry.tokens,
        cost=entry.cost,
        seconds=round(entry.seconds, 3),
        age=round(now - entry.created_at, 3),
        ttl=None if entry.expires_at == inf else round(entry.expires_at - now, 3),
    )


def content_of(entry: Entry) -> Any:
    """The answer as JSON can show it: a recorded reply's object, or its stream's events.

    A value of a class that JSON does not know is shown by its `repr`. Raises CorruptEntry for
    one whose class cannot be imported here.
    """
    if entry.form == Form.REPLY:
        reply = decode_reply(entry.payload)
        return _parsed(reply.body) if reply.body else [_parsed(event) for event in reply.events]
    value = entry.payload if entry.thaw is None else entry.thaw(entry.payload)
    return msgspec.to_builtins(value, enc_hook=repr, str_keys=True)


def _parsed(text: bytes) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return text.decode(errors="replace")
