"""What a provider of Anthropic's Messages answers, for the scripted provider to send."""

from __future__ import annotations

import json
from typing import Any

from gateway.upstream import Out, Script, Seen

USAGE = {
    "input_tokens": 11,
    "cache_creation_input_tokens": 3,
    "cache_read_input_tokens": 2,
    "output_tokens": 7,
    "service_tier": "standard",
}
TEXT = {"type": "text", "text": "hello"}
THOUGHT = {"type": "thinking", "thinking": "the user greets", "signature": "EqQB+/sig=="}
CALL = {
    "type": "tool_use",
    "id": "toolu_1",
    "name": "weather",
    "input": {"city": "Zürich", "days": [1, 2.50], "deep": {"a": None}},
}
IDLE = {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}}


def message(*blocks: dict[str, Any], stop: str | None = "end_turn", **more: Any) -> dict[str, Any]:
    return {
        "id": "msg_upstream",
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "content": list(blocks or (TEXT,)),
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": dict(USAGE),
    } | more


def events(whole: dict[str, Any]) -> list[dict[str, Any]]:
    """`whole` as the provider streams it: small deltas, a ping, usage in two places."""
    start = {**whole, "content": [], "stop_reason": None, "stop_sequence": None}
    start["usage"] = {**whole["usage"], "output_tokens": 1}
    said: list[dict[str, Any]] = [{"type": "message_start", "message": start}]
    for index, block in enumerate(whole["content"]):
        opened, deltas = _opened(block)
        said.append({"type": "content_block_start", "index": index, "content_block": opened})
        if index == 0:
            said.append({"type": "ping"})
        said += [{"type": "content_block_delta", "index": index, "delta": one} for one in deltas]
        said.append({"type": "content_block_stop", "index": index})
    end = {"stop_reason": whole["stop_reason"], "stop_sequence": whole["stop_sequence"]}
    usage = {"output_tokens": whole["usage"]["output_tokens"]}
    return [
        *said,
        {"type": "message_delta", "delta": end, "usage": usage},
        {"type": "message_stop"},
    ]


def _opened(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    if block["type"] == "text":
        halves = [block["text"][:2], block["text"][2:]]
        return {**block, "text": ""}, [{"type": "text_delta", "text": half} for half in halves]
    if block["type"] == "thinking":
        deltas = [
            {"type": "thinking_delta", "thinking": block["thinking"]},
            {"type": "signature_delta", "signature": block["signature"]},
        ]
        return {**block, "thinking": "", "signature": ""}, deltas
    if block["type"] == "tool_use":
        text = json.dumps(block["input"]) if block["input"] else ""
        pieces = [text[at : at + 5] for at in range(0, len(text), 5)] or [""]
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ["", *pieces]]
        return {**block, "input": {}}, deltas
    return block, []


def framed(said: list[dict[str, Any]]) -> bytes:
    lines = [f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in said]
    return "".join(lines).encode()


def answers(*blocks: dict[str, Any], stop: str = "end_turn", **more: Any) -> Script:
    """A provider that says this, whole or streamed as asked; and counts tokens."""
    whole = message(*blocks, stop=stop, **more)

    async def script(seen: Seen, out: Out) -> None:
        if seen.path.endswith("/count_tokens"):
            await out.json({"input_tokens": 42})
        elif seen.json.get("stream"):
            await out.begin_stream()
            text = framed(events(whole))
            for at in range(0, len(text), 61):  # borders fall anywhere
                await out.piece(text[at : at + 61])
            await out.end()
        else:
            await out.json(whole)

    return script
