"""An error of our own as an answer, in the shape of the protocol that is spoken at its path."""

from __future__ import annotations

from thinkonce.engine.http import Call, HttpError, send_whole
from thinkonce.engine.marks import JSON_TYPE
from thinkonce.outcome import Outcome, Reason
from thinkonce.protocols.registry import spoken_at
from thinkonce.upstream.failure import Header

__all__ = ("send_error",)


async def send_error(call: Call, error: HttpError) -> None:
    """Nothing is sent where an answer has begun: it is cut off, so that nobody trusts it."""
    if call.status:
        return
    call.refuses = True
    body = spoken_at(call.path).error(
        error.status, error.message, type=error.type, code=error.code, param=error.param
    )
    head = [JSON_TYPE, *_marks_of(call, error), *error.headers, (b"x-request-id", call.id)]
    await send_whole(call, error.status, head, body)


def _marks_of(call: Call, error: HttpError) -> list[Header]:
    """What an answer of the gateway's own says of the cache: that it stood aside, or was asked."""
    if not call.endpoint or any(name == b"x-cache" for name, _ in error.headers):
        return []
    outcome = (call.outcome or Outcome.BYPASS).upper().encode()
    return [(b"x-cache", outcome), (b"x-cache-reason", Reason.ERROR.encode())]
