"""An answer of the Responses API in its two shapes: one object, or the events that build it up.

    response.created, response.in_progress                  the object, nothing in it yet
    for each item   response.output_item.added              without its texts
                      message    content_part.added, output_text.delta ..., .done, content_part.done
                      call       function_call_arguments.delta ..., .done
                      reasoning  reasoning_summary_part.added, ..._text.delta ..., .done, ...
                    response.output_item.done               whole
    response.completed                                      the object, whole

From events to the object nothing is assembled: the last event holds it. It is handed out where
the events before it said all of it and nothing else. An item whose
events are not known here makes no stream.
Source: the reference of streaming events in OpenAI's API documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from thinkonce.protocols.bounds import all_keepable
from thinkonce.protocols.merging import Object, parse_chunk, pieces_of
from thinkonce.protocols.responses.events import END, brief, response_in

__all__ = ("split", "whole_of")

# What may differ between the event that ends an item and the object. Providers encrypt anew.
_CHANGING = frozenset({"status", "encrypted_content"})

_encode = msgspec.json.Encoder().encode


# -- events to object ------------------------------------------------------------------------


def whole_of(events: Sequence[bytes]) -> bytes | None:
    """The object in the last event; None where it is not what the events before it said."""
    for data in reversed(events):
        if data.startswith(b"{") and brief(data).type in END:
            whole = response_in(data)
            return whole if _agrees(parse_chunk(whole), events) else None
    return None


def _agrees(whole: Object, events: Sequence[bytes]) -> bool:
    texts: dict[tuple[Any, ...], list[str]] = {}
    items: dict[int, Object] = {}
    try:
        for data in events:
            event = parse_chunk(data) if data.startswith(b"{") else {}
            if event.get("type") == "response.output_item.done":
                items[event["output_index"]] = event["item"]
            elif place := _PLACES.get(event.get("type", "")):
                texts.setdefault(place(event), []).append(event["delta"])
        output = whole["output"]
        said = [
            _same_item(items[index], item) if index in items else _is_in(texts, index, item)
            for index, item in enumerate(output)
        ]
        return (
            all(said)
            and all(index < len(said) for index in items)
            and all(_at(output, path) == "".join(pieces) for path, pieces in texts.items())
        )
    except (AttributeError, IndexError, KeyError, TypeError):  # not events as we know them
        return False


def _same_item(done: Object, kept: Object) -> bool:
    return _lasting(done) == _lasting(kept)


def _lasting(item: Object) -> Object:
    return {name: value for name, value in item.items() if name not in _CHANGING}


def _is_in(texts: Collection[tuple[Any, ...]], index: int, item: Object) -> bool:
    """Whether the pieces of text, for want of the item's own event, were all there is to it."""
    if item["type"] != "message" or not item["content"]:
        return False
    for number, part in enumerate(item["content"]):
        name, empty = _PARTS[part["type"]]
        more = any(part.get(each) for each in empty if each != name)
        if more or (index, "content", number, name) not in texts:
            return False
    return True


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


# Where in the object's output the text of a delta belongs.
_PLACES: Mapping[str, Callable[[Object], tuple[Any, ...]]] = MappingProxyType(
    {
        "response.output_text.delta": lambda event: (*_part_of(event), "text"),
        "response.refusal.delta": lambda event: (*_part_of(event), "refusal"),
        "response.reasoning_text.delta": lambda event: (*_part_of(event), "text"),
        "response.reasoning_summary_text.delta": lambda event: (
            event["output_index"],
            "summary",
            event["summary_index"],
            "text",
        ),
        "response.function_call_arguments.delta": lambda event: (
            event["output_index"],
            "arguments",
        ),
        "response.custom_tool_call_input.delta": lambda event: (event["output_index"], "input"),
    }
)


def _part_of(event: Object) -> tuple[Any, ...]:
    return event["output_index"], "content", event["content_index"]


# -- object to events ------------------------------------------------------------------------


def split(body: bytes) -> list[bytes] | None:
    """Events that build up `body`, which is in the last one as it is.

    None where that cannot be made without loss.
    """
    try:
        whole = parse_chunk(body)
        if not all_keepable((whole,)):
            return None
        events = [_numbered(event, number) for number, event in enumerate(_events(whole))]
        head = {"type": f"response.{whole['status']}", "sequence_number": len(events)}
        # A line end inside JSON is white space, and an event is one line.
        line = body.strip().replace(b"\r", b" ").replace(b"\n", b" ")
        if head["type"] not in END or not line.startswith(b"{"):  # the latter: a byte order mark
            return None
        return [*map(_encode, events), _encode(head)[:-1] + b',"response":' + line + b"}"]
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return None


def _numbered(event: Object, number: int) -> Object:
    return {"type": event.pop("type"), "sequence_number": number, **event}


def _events(whole: Object) -> Iterator[Object]:
    begun = {**whole, "status": "in_progress", "output": []}
    for name in ("usage", "completed_at", "incomplete_details", "output_text"):
        if name in begun:
            begun[name] = None
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for index, item in enumerate(whole["output"]):
        yield from _item_events(item, index)


def _item_events(item: Object, index: int) -> Iterator[Object]:
    place: Object = {"output_index": index}
    inside, empty = _ITEMS[item["type"]]
    added = {**item, **{name: value for name, value in empty.items() if name in item}}
    if "status" in added:
        added["status"] = "in_progress"
    yield {"type": "response.output_item.added", **place, "item": added}
    for event in inside(item):
        yield {"type": event.pop("type"), "item_id": item.get("id", ""), **place, **event}
    yield {"type": "response.output_item.done", **place, "item": item}


def _in_message(item: Object) -> Iterator[Object]:
    for number, part in enumerate(item["content"]):
        for event in _part_events(part):
            yield {**event, "content_index": number}


def _part_events(part: Object) -> Iterator[Object]:
    name, empty = _PARTS[part["type"]]
    bare = {**part, **{each: value for each, value in empty.items() if each in part}}
    yield {"type": "response.content_part.added", "part": bare}
    text, kind = part[name], f"response.{part['type']}"
    logs = {"logprobs": part.get("logprobs") or []} if part["type"] == "output_text" else {}
    # Which of them belong to which piece is not told: then the text stays in one.
    for piece in [text] if any(logs.values()) else pieces_of(text):
        yield {"type": f"{kind}.delta", "delta": piece, **logs}
    for place, note in enumerate(part.get("annotations") or ()):
        yield {"type": f"{kind}.annotation.added", "annotation": note, "annotation_index": place}
    yield {"type": f"{kind}.done", name: text, **logs}
    yield {"type": "response.content_part.done", "part": part}


def _in_reasoning(item: Object) -> Iterator[Object]:
    for number, part in enumerate(item.get("summary") or ()):
        if part["type"] != "summary_text":
            raise KeyError(part["type"])
        text, kind = part["text"], "response.reasoning_summary"
        place = {"summary_index": number}
        yield {"type": f"{kind}_part.added", "part": {**part, "text": ""}, **place}
        for piece in pieces_of(text):
            yield {"type": f"{kind}_text.delta", "delta": piece, **place}
        yield {"type": f"{kind}_text.done", "text": text, **place}
        yield {"type": f"{kind}_part.done", "part": part, **place}
    if item.get("content"):
        yield from _in_message(item)


def _in_function_call(item: Object) -> Iterator[Object]:
    return _call_events(item, "arguments", "response.function_call_arguments")


def _in_custom_call(item: Object) -> Iterator[Object]:
    return _call_events(item, "input", "response.custom_tool_call_input")


def _call_events(item: Object, name: str, kind: str) -> Iterator[Object]:
    for piece in pieces_of(item[name]):
        yield {"type": f"{kind}.delta", "delta": piece}
    yield {"type": f"{kind}.done", name: item[name]}


# For each type of item: its events, and what of it is not there yet when it begins.
_ITEMS: Mapping[str, tuple[Callable[[Object], Iterator[Object]], Object]] = MappingProxyType(
    {
        "message": (_in_message, {"content": []}),
        "reasoning": (_in_reasoning, {"summary": [], "content": []}),
        "function_call": (_in_function_call, {"arguments": ""}),
        "custom_tool_call": (_in_custom_call, {"input": ""}),
    }
)
# For each type of part: the member with its text, and what of it is not there yet.
_PARTS: Mapping[str, tuple[str, Object]] = MappingProxyType(
    {
        "output_text": ("text", {"text": "", "annotations": [], "logprobs": []}),
        "refusal": ("refusal", {"refusal": ""}),
        "reasoning_text": ("text", {"text": ""}),
    }
)
