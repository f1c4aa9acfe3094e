"""Ids and times made anew: strict answers have some of their own, whether stored or just made."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import SystemRandom
from string import ascii_letters, ascii_lowercase, digits, hexdigits
from uuid import uuid4

from thinkonce.protocols.annotation import unmarked
from thinkonce.protocols.dialect import Stamp
from thinkonce.protocols.splice import members
from thinkonce.protocols.sse import frame

__all__ = ("Events", "id_like")

_choose = SystemRandom().choice
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_ENDS = (b"[DONE]", b"message_stop")  # data of the last event, or its name
_START = b"message_start"  # what has the id of a message in it
_EMPTY = {"id": b'""', "created": b"0"}  # what a template leaves as it is, too


def id_like(source: str) -> str:
    """An id of the same form: what stands before the last - or _ stays, the rest is drawn anew.

    A UUID is drawn anew as a whole.
    """
    if uuid := _UUID.search(source):
        return source[: uuid.start()] + str(uuid4())
    at = max(source.rfind("-"), source.rfind("_")) + 1
    rest = source[at:]
    letters = next(
        (
            kind
            for kind in (digits, hexdigits[:16], ascii_lowercase + digits, ascii_letters + digits)
            if set(rest) <= set(kind)
        ),
        ascii_letters + digits,
    )
    return source[:at] + "".join(_choose(letters) for _ in rest)


class Events:
    """The events of one stream on its way, as a stored one has them.

    Without pings and comments, marks of another cache, and what comes behind the end mark; with an
    id and a time of its own. `stamp` makes them, given the upstream's id.
    """

    def __init__(self, stamp: Callable[[str], Stamp]) -> None:
        self._stamp = stamp
        self._given: Stamp | None = None
        self._was: dict[str, bytes] = {}  # the id and the time as they came
        self._ended = False
        self._in_part = False  # an event too large to be stored has begun, and not ended

    def pass_on(self, piece: bytes) -> bytes:
        """`piece`: events, each with its blank line; of one too large to be stored, a part."""
        *whole, part = piece.split(b"\n\n")
        passed = []
        if whole and self._in_part:
            self._in_part = False
            passed.append(whole.pop(0) + b"\n\n")
        passed += map(self._event, whole)
        self._in_part = self._in_part or bool(part)
        return b"".join((*passed, part))

    def _event(self, text: bytes) -> bytes:
        fields = [line.partition(b":")[::2] for line in text.split(b"\n")]
        data = b"\n".join(value.removeprefix(b" ") for name, value in fields if name == b"data")
        name = next((value.strip() for each, value in fields if each == b"event"), b"")
        if not data or name == b"ping" or self._ended:
            return b""
        self._ended = data in _ENDS or name in _ENDS
        if data.startswith(b"{"):
            data = unmarked(data)
            data = self._message_anew(data) if name == _START else self._anew(data)
        return frame(data, name.decode("latin-1"))

    def _message_anew(self, data: bytes) -> bytes:
        """The event that begins a message has the id one level down."""
        message = next((each for each in members(data) if each.name == "message"), None)
        if message is None:
            return data
        at, end = message.value, message.end
        return data[:at] + self._anew(data[at:end]) + data[end:]

    def _anew(self, data: bytes) -> bytes:
        ours = [member for member in members(data, tuple(_EMPTY)) if member.name in _EMPTY]
        if len(ours) > 2:  # named twice
            return data
        for member in ours:
            value = data[member.value : member.end]
            if value != _EMPTY[member.name]:
                self._was.setdefault(member.name, value)
        for member in reversed(ours):
            value = data[member.value : member.end]
            if value == self._was.get(member.name):
                now = self._value(member.name)
                data = data[: member.value] + now + data[member.end :]
        return data

    def _value(self, name: str) -> bytes:
        if self._given is None:
            source = self._was.get("id", b"")
            is_text = source.startswith(b'"')
            self._given = self._stamp(source[1:-1].decode("latin-1") if is_text else "")
        given = self._given
        return b'"%b"' % given.id.encode() if name == "id" else b"%d" % given.created
