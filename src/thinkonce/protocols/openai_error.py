"""An error in the shape OpenAI's dialects share."""

from __future__ import annotations

import msgspec

__all__ = ("openai_error",)

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}

_encode = msgspec.json.Encoder().encode


def openai_error(status: int, message: str, type: str, code: str, param: str) -> bytes:
    """`{"error": {"message", "type", "param", "code"}}`; an empty `type` is chosen by `status`."""
    if not type:
        other = "invalid_request_error" if status < 500 else "server_error"
        type = _TYPES.get(status, other)
    # What a client sent is in both, half a surrogate pair perhaps: an error is always told.
    message, param = (
        text.encode("utf-8", "backslashreplace").decode() for text in (message, param)
    )
    error = {"message": message, "type": type, "param": param or None, "code": code or None}
    return _encode({"error": error})
