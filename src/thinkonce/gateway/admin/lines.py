"""A request body read line by line as it arrives, so that a batch may be larger than memory."""

from __future__ import annotations

from collections.abc import AsyncIterator

from thinkonce.gateway.http import Call, ClientGone, HttpError

__all__ = ("Line", "lines_of")

Line = tuple[int, bytes | None]  # number from 1; None: longer than the limit


async def lines_of(call: Call, limit: int) -> AsyncIterator[Line]:
    """Lines that are not blank, without their newline. `limit`: bytes of one line.

    Raises ClientGone, HttpError 415 for a body that is compressed.
    """
    coding = call.head.get(b"content-encoding", b"identity")
    if coding.lower() != b"identity":
        got = coding.decode("latin-1")
        raise HttpError(415, f"content-encoding: got {got!r}; lines are accepted as they are")
    number, rest, skipping, more = 0, b"", False, True
    while more:
        message = await call.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        more = bool(message.get("more_body"))
        *whole, rest = (rest + message.get("body", b"")).split(b"\n")
        if not more and rest:
            whole, rest = [*whole, rest], b""
        for line in whole:
            number += 1
            if skipping or len(line) > limit:
                yield number, None
                skipping = False
            elif line.strip():
                yield number, line
        if len(rest) > limit:  # the rest of this line is read and let go
            rest, skipping = b"", True
