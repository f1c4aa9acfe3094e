"""Made-up answers of the Responses API, whole and as events."""

from __future__ import annotations

import json
from typing import Any

from thinkonce.protocols.sse import frame

USAGE = {
    "input_tokens": 7,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 2,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 9,
}
REQUEST: dict[str, Any] = {"model": "m", "input": "say hello to me please"}


def message(text: str = "hello", **more: Any) -> dict[str, Any]:
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": text} | more
    return item("message", "msg_1", role="assistant", content=[part])


def item(kind: str, identity: str, /, **more: Any) -> dict[str, Any]:
    return {"id": identity, "type": kind, "status": "completed"} | more


def call(arguments: str = '{"city":"Oslo"}') -> dict[str, Any]:
    return item("function_call", "fc_1", call_id="call_1", name="weather", arguments=arguments)


def reasoning(*summary: str) -> dict[str, Any]:
    parts = [{"type": "summary_text", "text": text} for text in summary]
    return {"id": "rs_1", "type": "reasoning", "encrypted_content": "gAAA", "summary": parts}


def answer(*output: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A whole answer; `more` replaces or joins its members."""
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 17,
        "status": "completed",
        "completed_at": 19,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "model": "m-1",
        "output": list(output) or [message()],
        "previous_response_id": None,
        "usage": USAGE,
    } | more


def encoded(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def event(kind: str, number: int = 0, **more: Any) -> bytes:
    """The data of one event."""
    return encoded({"type": kind, "sequence_number": number, **more})


def named(data: bytes) -> bytes:
    """As it goes over the wire."""
    return frame(data, json.loads(data)["type"])


def framed(events: list[bytes]) -> bytes:
    return b"".join(map(named, events))


def delta(text: str, number: int = 0) -> bytes:
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    return event("response.output_text.delta", number, delta=text, logprobs=[], **place)


def stream(whole: dict[str, Any] | None = None, *texts: str) -> list[bytes]:
    """The events of a short answer in words, by hand; the last one has `whole`."""
    whole = whole or answer()
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    said = texts or ("hel", "lo")
    return [
        event("response.created", 0, response=begun),
        event("response.in_progress", 1, response=begun),
        *(delta(text, number) for number, text in enumerate(said, 2)),
        event(f"response.{whole['status']}", len(said) + 2, response=whole),
    ]
