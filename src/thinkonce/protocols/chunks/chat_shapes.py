"""A chat answer in its two shapes: one JSON object, or chunks. Either is made from the other.

chunks                                             object
choices[i].delta.TEXT   "a" "b" "c"           <->  choices[i].message.TEXT  "abc"
....tool_calls[j].function.arguments "{" "}"  <->  ....tool_calls at place j, "{}"
....logprobs.content    [x] [y]               <->  [x, y]
anything else, if all chunks agree on it      <->  as it is
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from thinkonce.protocols.chunks.shapes import Shapes, assemble_chunks, split_chunks
from thinkonce.protocols.merging import (
    Object,
    Unmergeable,
    agree,
    joined,
    merge_lists,
    parse_chunk,
    pieces_of,
)

__all__ = ("CHAT_SHAPES", "REASONING", "assemble", "split")

REASONING = ("reasoning_content", "reasoning", "thinking")  # said before the content
_TEXT_OF_CALL = {"function": "arguments", "custom": "input"}  # the part that comes in pieces


# -- chunks to object ------------------------------------------------------------------------


def assemble(events: Sequence[bytes]) -> Object | None:
    """The object the chunks amount to; None if it cannot be told without loss."""
    return assemble_chunks(events, "chat.completion", _merge_choice, _finished)


def _merge_choice(into: Object, choice: Object) -> None:
    message = into.setdefault("message", {})
    for name, value in choice.items():
        if name == "delta":
            _merge_delta(message, value or {})
        elif name == "logprobs":
            into[name] = merge_lists(into.get(name), value)
        elif name != "index":
            into[name] = agree(into.get(name), value)


def _merge_delta(message: Object, delta: Object) -> None:
    for name, value in delta.items():
        if value is None:
            message.setdefault(name, None)
        elif name == "role":
            message[name] = agree(message.get(name), value)
        elif name == "tool_calls":
            message[name] = _merge_calls(message.get(name) or {}, value)
        elif name == "function_call":
            message[name] = _merge_function(message.get(name) or {}, value, "arguments")
        else:
            merge = joined if isinstance(value, str) else agree
            message[name] = merge(message.get(name), value)


def _merge_calls(calls: dict[int, Object], deltas: list[Object]) -> dict[int, Object]:
    for position, delta in enumerate(deltas):
        call = calls.setdefault(delta.get("index", position), {})
        if _may_begin_another(call, delta):
            raise Unmergeable
        for name, value in delta.items():
            if name in _TEXT_OF_CALL and isinstance(value, dict):
                call[name] = _merge_function(call.get(name) or {}, value, _TEXT_OF_CALL[name])
            elif name != "index":
                call[name] = agree(call.get(name), value)
    return calls


def _may_begin_another(call: Object, delta: Object) -> bool:
    """Whether, after a name or arguments, a name or an id comes that may be of the next call.

    Some servers give parallel calls one index, and no ids. Others repeat both with each piece.
    """
    begun = any(_says(call, kind, "name", text) for kind, text in _TEXT_OF_CALL.items())
    if delta.get("id"):
        return begun and bool(delta["id"] != call.get("id"))
    return begun and any(_says(delta, kind, "name") for kind in _TEXT_OF_CALL)


def _says(call: Object, kind: str, *names: str) -> bool:
    function = call.get(kind) or {}
    return any(function.get(name) for name in names)


def _merge_function(function: Object, delta: Object, text: str) -> Object:
    for name, value in delta.items():
        merge = joined if name == text else agree
        function[name] = merge(function.get(name), value)
    return function


def _finished(choice: Object) -> Object:
    message = choice["message"]
    message.setdefault("role", "assistant")
    message.setdefault("content", None)
    calls = message.get("tool_calls")
    if isinstance(calls, dict):
        message["tool_calls"] = [calls[index] for index in sorted(calls)]
        for call in calls.values():
            _check_arguments(call.get("function"))
    _check_arguments(message.get("function_call"))
    choice.setdefault("finish_reason", None)
    return choice


def _check_arguments(function: Object | None) -> None:
    """Pieces that amount to no JSON may be those of two calls."""
    arguments = function.get("arguments") if function else None
    if isinstance(arguments, str) and arguments:
        try:
            parse_chunk(arguments.encode("utf-8", "surrogatepass"))
        except (ValueError, RecursionError):
            raise Unmergeable from None


# -- object to chunks ------------------------------------------------------------------------


def split(body: Object) -> list[bytes] | None:
    """Chunks that assemble to `body`, without any usage; None if it is not a chat answer."""
    return split_chunks(body, "chat.completion.chunk", _choice_pieces)


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
        for piece in [message[name]] if whole else pieces_of(message[name]):
            yield {name: piece}


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


CHAT_SHAPES = Shapes(assemble, split)
