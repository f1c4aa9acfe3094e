"""A chat answer in its two shapes: one JSON object, or chunks. Either is made from the other.

    chunks                                             object
    choices[i].delta.TEXT   "a" "b" "c"           <->  choices[i].message.TEXT  "abc"
    ....tool_calls[j].function.arguments "{" "}"  <->  ....tool_calls at place j, "{}"
    ....logprobs.content    [x] [y]               <->  [x, y]
    anything else, if all chunks agree on it      <->  as it is

What chunks do not agree on cannot be merged without loss: then there is no object.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

__all__ = ("REASONING", "assemble", "parse_chunk", "split")

Object = dict[str, Any]

_PADDING = frozenset({"obfuscation", "p"})  # random text against traffic analysis
REASONING = ("reasoning_content", "reasoning", "thinking")  # said before the content
_HEAD = ("id", "object", "created", "model", "service_tier", "system_fingerprint")
_TEXT_OF_CALL = {"function": "arguments", "custom": "input"}  # the part that comes in pieces
_PIECES = 8  # of a text that came whole

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class _Unmergeable(Exception):
    """Two chunks say different things and nothing tells how they belong together."""


def parse_chunk(data: bytes) -> Any:
    """Also what msgspec refuses, such as half of a surrogate pair. Raises ValueError."""
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return json.loads(data)


# -- chunks to object ------------------------------------------------------------------------


def assemble(events: Sequence[bytes]) -> Object | None:
    """The object the chunks amount to; None if it cannot be told without loss."""
    whole: Object = {}
    choices: dict[int, Object] = {}
    try:
        for data in events:
            _merge_chunk(whole, choices, parse_chunk(data))
        whole["choices"] = [_finished(choices[index]) for index in sorted(choices)]
    except (_Unmergeable, AttributeError, TypeError):  # the last two: not a chunk as we know it
        return None
    return whole


def _merge_chunk(whole: Object, choices: dict[int, Object], chunk: Object) -> None:
    for name, value in chunk.items():
        if name == "choices":
            whole.setdefault("choices", None)  # its place among the members
            for choice in value or ():
                _merge_choice(choices, choice)
        elif name == "object":
            whole[name] = "chat.completion"
        elif name in _HEAD:
            whole[name] = whole.get(name) or value
        elif name == "usage":
            whole[name] = whole.get(name) if value is None else value
        elif name not in _PADDING:
            whole[name] = _agree(whole.get(name), value)


def _merge_choice(choices: dict[int, Object], choice: Object) -> None:
    index = choice.get("index", 0)
    into = choices.setdefault(index, {"index": index, "message": {}})
    for name, value in choice.items():
        if name == "delta":
            _merge_delta(into["message"], value or {})
        elif name == "logprobs":
            into[name] = _merge_logprobs(into.get(name), value)
        elif name != "index":
            into[name] = _agree(into.get(name), value)


def _merge_delta(message: Object, delta: Object) -> None:
    for name, value in delta.items():
        if value is None:
            message.setdefault(name, None)
        elif name == "role":
            message[name] = _agree(message.get(name), value)
        elif name == "tool_calls":
            message[name] = _merge_calls(message.get(name) or {}, value)
        elif name == "function_call":
            message[name] = _merge_function(message.get(name) or {}, value, "arguments")
        else:
            merge = _joined if isinstance(value, str) else _agree
            message[name] = merge(message.get(name), value)


def _merge_calls(calls: dict[int, Object], deltas: list[Object]) -> dict[int, Object]:
    for position, delta in enumerate(deltas):
        call = calls.setdefault(delta.get("index", position), {})
        for name, value in delta.items():
            if name in _TEXT_OF_CALL and isinstance(value, dict):
                call[name] = _merge_function(call.get(name) or {}, value, _TEXT_OF_CALL[name])
            elif name != "index":
                call[name] = _agree(call.get(name), value)
    return calls


def _merge_function(function: Object, delta: Object, text: str) -> Object:
    for name, value in delta.items():
        merge = _joined if name == text else _agree
        function[name] = merge(function.get(name), value)
    return function


def _merge_logprobs(old: Any, new: Any) -> Any:
    if old is None or new is None:
        return new if old is None else old
    return {name: _joined(old.get(name), new.get(name)) for name in {**old, **new}}


def _joined(old: Any, new: Any) -> Any:
    """Texts and lists one after the other; for anything else both must be the same."""
    if old is None or new is None:
        return new if old is None else old
    if isinstance(old, str) and isinstance(new, str):
        return old + new
    if isinstance(old, list) and isinstance(new, list):
        return old + new
    return _agree(old, new)


def _agree(old: Any, new: Any) -> Any:
    if old == new and type(old) is type(new):
        return old
    if old is None or old in ("", {}, []):
        return old if new is None else new
    if new is None or new in ("", {}, []):
        return old
    if isinstance(old, dict) and isinstance(new, dict):
        return {name: _agree(old.get(name), new.get(name)) for name in {**old, **new}}
    raise _Unmergeable


def _finished(choice: Object) -> Object:
    message = choice["message"]
    message.setdefault("role", "assistant")
    message.setdefault("content", None)
    calls = message.get("tool_calls")
    if isinstance(calls, dict):
        message["tool_calls"] = [calls[index] for index in sorted(calls)]
    choice.setdefault("finish_reason", None)
    return choice


# -- object to chunks ------------------------------------------------------------------------


def split(body: Object) -> list[bytes] | None:
    """Chunks that assemble to `body`, without any usage; None if it is not a chat answer."""
    try:
        return [_encode(chunk) for chunk in _chunks(body)]
    except (AttributeError, KeyError, TypeError, UnicodeEncodeError):
        return None


def _chunks(body: Object) -> Iterator[Object]:
    head = {name: body[name] for name in _HEAD if name in body}
    head["object"] = "chat.completion.chunk"
    extras = {name: body[name] for name in body if name not in (*_HEAD, "choices", "usage")}
    for position, choice in enumerate(body["choices"]):
        for pieces in _choice_pieces({"index": position, **choice}):
            yield {**head, "choices": [pieces], **extras}
            extras = {}


def _choice_pieces(choice: Object) -> Iterator[Object]:
    """The choice piece by piece: opening, texts, calls, end."""
    common: Object = {"index": choice["index"]}
    logprobs = choice.get("logprobs")
    nothing = {"logprobs": None} if "logprobs" in choice else {}
    message = choice["message"]

    yield {**common, "delta": _opening(message), **nothing, "finish_reason": None}
    for delta in _text_deltas(message, whole=logprobs is not None):
        piece = {**common, "delta": delta, **nothing, "finish_reason": None}
        if logprobs is not None and "content" in delta:
            piece["logprobs"], logprobs = logprobs, None
        yield piece
    for delta in _call_deltas(message):
        yield {**common, "delta": delta, **nothing, "finish_reason": None}
    end = {name: value for name, value in choice.items() if name not in ("message", "logprobs")}
    yield {**end, "delta": {}, **({"logprobs": logprobs} if "logprobs" in choice else {})}


def _opening(message: Object) -> Object:
    """All that does not come in pieces, and the empty texts."""
    opening: Object = {"role": message["role"]} if "role" in message else {}
    for name, value in message.items():
        if name == "content":
            opening[name] = "" if isinstance(value, str) else value
        elif name == "tool_calls" or name == "function_call":
            if not value:
                opening[name] = value
        elif name != "role" and not (isinstance(value, str) and value):
            opening[name] = value
    return opening


def _text_deltas(message: Object, *, whole: bool) -> Iterator[Object]:
    spoken = [n for n, v in message.items() if isinstance(v, str) and v and n != "role"]
    for name in sorted(spoken, key=lambda name: name not in REASONING):
        text = message[name]
        size = len(text) if whole else max(32, -(-len(text) // _PIECES))
        for start in range(0, len(text), size):
            yield {name: text[start : start + size]}


def _call_deltas(message: Object) -> Iterator[Object]:
    for index, call in enumerate(message.get("tool_calls") or ()):
        for piece in _call_pieces(call, _TEXT_OF_CALL):
            yield {"tool_calls": [{"index": index, **piece}]}
    function = message.get("function_call")
    if function:
        for piece in _call_pieces({"function_call": function}, {"function_call": "arguments"}):
            yield piece


def _call_pieces(call: Object, text_of: dict[str, str]) -> Iterator[Object]:
    """The call with an empty text first, then the text: the order clients know."""
    first, later = dict(call), {}
    for name, text in text_of.items():
        function = call.get(name)
        if isinstance(function, dict) and isinstance(function.get(text), str):
            first[name] = {**function, text: ""}
            later = {name: {text: function[text]}} if function[text] else {}
    yield first
    if later:
        yield later
