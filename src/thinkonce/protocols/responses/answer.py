"""An object of the Responses API, read for what is to be said of it."""

from __future__ import annotations

from typing import Any

import msgspec

from thinkonce.protocols.bounds import all_keepable, bounded, encodable
from thinkonce.protocols.dialect import Asked
from thinkonce.protocols.merging import parse_chunk
from thinkonce.protocols.reply import Gist, Reply
from thinkonce.protocols.usage import counted, estimate_usage, usage_text

__all__ = ("Response", "described", "gist_of", "read_response")

# Why an answer is incomplete, where that has a reason word of its own.
_CUT = ("max_output_tokens", "content_filter")


class Response(msgspec.Struct):
    """What counts of it. `status`: completed, incomplete, failed, cancelled, queued, ..."""

    output: list[dict[str, Any]]
    id: str = ""
    status: str | None = None
    model: str | None = None
    created_at: float | int | None = None
    usage: dict[str, Any] | None = None
    error: Any = None
    incomplete_details: dict[str, Any] | None = None

    @property
    def failed(self) -> bool:
        return self.error is not None or self.status == "failed"

    @property
    def finish(self) -> str | None:
        """Its status, or what cut it short."""
        if self.status != "incomplete":
            return self.status
        reason = (self.incomplete_details or {}).get("reason")
        return reason if reason in _CUT else self.status

    @property
    def odd(self) -> bool:
        """Whether something in it has no place in a record."""
        return not all_keepable((self.id, self.model, self.created_at, self.usage, self.status))

    @property
    def says_something(self) -> bool:
        """Whether some item is a call, or a message with words in it."""
        return any(map(_says_something, self.output))

    def texts(self) -> tuple[str, ...]:
        """What must be JSON if JSON was asked for: the last message, if nothing else was said."""
        messages = [item for item in self.output if item.get("type") == "message"]
        others = [item for item in self.output if item.get("type") not in ("message", "reasoning")]
        if others or not messages:
            return ()
        parts = _parts(messages[-1])
        if any(part.get("refusal") for part in parts):
            return ()
        return ("".join(part["text"] for part in parts if isinstance(part.get("text"), str)),)


def _parts(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    return [part for part in content or () if isinstance(part, dict)]


def _says_something(item: dict[str, Any]) -> bool:
    kind = item.get("type")
    if kind == "message":
        return any(part.get("text") or part.get("refusal") for part in _parts(item))
    return kind != "reasoning"


def read_response(data: bytes) -> Response:
    """Raises ValueError or RecursionError for what is none."""
    try:
        return msgspec.json.decode(data, type=Response)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return msgspec.convert(parse_chunk(data), Response)


def gist_of(response: Response, asked: Asked, size: int) -> Gist:
    """Of a whole answer."""
    return Gist(
        done=True,
        failed=response.failed,
        odd=response.odd,
        finishes=(response.finish,),
        empty=not response.says_something,
        texts=response.texts() if asked.wants_json else (),
        size=size,
    )


def described(reply: Reply, response: Response, asked: Asked) -> Reply:
    """`reply` with the facts that headers and metrics need."""
    usage = response.usage
    tokens = counted(usage) if usage is not None else estimate_usage(asked, response.output)
    return msgspec.structs.replace(
        reply,
        usage=b"" if usage is None else usage_text(usage),
        usage_asked=True,
        usage_estimated=usage is None,
        finishes=(encodable(response.finish or ""),),
        model=encodable(response.model or ""),
        source_id=encodable(response.id),
        created=bounded(response.created_at),
        prompt_tokens=tokens.prompt_tokens,
        completion_tokens=tokens.completion_tokens,
    )
