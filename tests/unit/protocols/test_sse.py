"""The event parser: any line ends, any borders, bounded memory, nothing lost."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkonce.protocols.sse import Event, EventParser, frame

STREAM = (
    'data: {"a":1}\n\n'
    ": ping 你好\n\n"
    "event: tick\ndata: two\ndata:  lines\nid: 7\n\n"
    "\n"
    "data:no space 🙂\n\n"
    "retry: 5\n\n"
    "data\n\n"
    "data: [DONE]\n\n"
).encode()
EXPECTED = [
    ("", b'{"a":1}'),
    ("", None),
    ("tick", b"two\n lines"),
    ("", "no space 🙂".encode()),
    ("", None),
    ("", b""),
    ("", b"[DONE]"),
]


def parse(pieces: Iterable[bytes], limit: int = 1 << 20) -> list[Event]:
    parser = EventParser(limit)
    events = [event for piece in pieces for event in parser.feed(piece)]
    return events + parser.finish()


def told(events: list[Event]) -> list[tuple[str, bytes | None]]:
    return [(event.name, event.data) for event in events]


def test_events_are_read_as_the_standard_says() -> None:
    assert told(parse([STREAM])) == EXPECTED


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_cutting_anywhere_changes_nothing(end: bytes) -> None:
    stream = STREAM.replace(b"\n", end)
    for place in range(len(stream) + 1):
        events = parse([stream[:place], stream[place:]])
        assert told(events) == EXPECTED, f"cut at {place}: {stream[:place][-20:]!r}"
        assert b"".join(event.raw for event in events) == STREAM


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_byte_by_byte_is_the_same_as_at_once(end: bytes) -> None:
    stream = STREAM.replace(b"\n", end)
    assert parse(stream[i : i + 1] for i in range(len(stream))) == parse([stream])


def test_an_event_is_given_at_once_and_not_with_the_next() -> None:
    parser = EventParser()
    assert told(parser.feed(b"data: 1\r\r")) == [("", b"1")], "a CR alone ends a line"
    assert told(parser.feed(b"\ndata: 2\r\n\r")) == [("", b"2")]
    assert parser.feed(b"\n") == []
    assert told(parser.feed(b"data: 3\n\n")) == [("", b"3")]


def test_a_byte_order_mark_is_not_part_of_the_first_field() -> None:
    assert told(parse([b"\xef\xbb", b"\xbfdata: 1\n\n"])) == [("", b"1")]


def test_a_stream_cut_off_shows_what_it_ended_in() -> None:
    parser = EventParser()
    assert told(parser.feed(b"data: 1\n\ndata: [DONE]\n")) == [("", b"1")]
    assert told(parser.finish()) == [("", b"[DONE]")]
    assert parser.finish() == []


def test_an_event_too_large_comes_in_pieces_and_the_next_one_whole() -> None:
    huge = b"data: " + b"x" * 100
    stream = b"data: 1\n\n" + huge + b"\n\ndata: 2\n\n"
    for place in range(len(stream) + 1):
        parser = EventParser(max_event_bytes=50)
        events = parser.feed(stream[:place]) + parser.feed(stream[place:])
        assert b"".join(event.raw for event in events) == stream
        data = [event.data for event in events if event.data is not None]
        assert data[0] == b"1"
        assert data[-1] == b"2"
        assert parser.oversized == (len(data) == 2)


def test_the_rest_of_a_large_event_is_no_event_of_its_own() -> None:
    parser = EventParser(max_event_bytes=50)
    parser.feed(b"data: 1\n\n")
    assert told(parser.feed(b"data: " + b"x" * 100)) == [("", None)]
    assert told(parser.feed(b"data: still the same\n\n")) == [("", None)]
    assert told(parser.feed(b"data: 2\n\n")) == [("", b"2")]


def test_memory_is_bounded_by_the_largest_event() -> None:
    parser = EventParser(max_event_bytes=1000)
    for _ in range(1000):
        parser.feed(b"x" * 100)
        assert len(parser._rest) <= 1100
    assert parser.oversized


def test_a_frame_is_read_back() -> None:
    assert told(parse([frame(b"{}"), frame(b"1", "error")])) == [("", b"{}"), ("error", b"1")]


lines = st.sampled_from(
    [b"data: x", b"data:y", b"event: e", b": c", b"", b"", b"id: 1", "data: é🙂".encode(), b"data"]
)
ends = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(st.lists(st.tuples(lines, ends), max_size=20), st.lists(st.integers(0, 200), max_size=6))
def test_any_stream_cut_anyhow_gives_the_same_events(
    written: list[tuple[bytes, bytes]], cuts: list[int]
) -> None:
    stream = b"".join(line + end for line, end in written)
    places = sorted({0, *(min(cut, len(stream)) for cut in cuts), len(stream)})
    pieces = [stream[a:b] for a, b in pairwise(places)]
    assert parse(pieces) == parse([stream])
    assert data_of(parse(pieces)) == data_of(reference(written))


def data_of(events: list[Event]) -> list[tuple[str, bytes | None]]:
    return [(event.name, event.data) for event in events if event.data is not None]


def reference(written: list[tuple[bytes, bytes]]) -> list[Event]:
    """Line by line, as the standard tells it. A CR followed by a line LF would be one end."""
    text = b"".join(line + end for line, end in written)
    events: list[Event] = []
    block: list[bytes] = []
    lines = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    for line in lines:
        if line:
            block.append(line)
        elif block:
            events.append(_event(block))
            block = []
    if block:
        events.append(_event(block))
    return events


def _event(block: list[bytes]) -> Event:
    fields = [line.partition(b":") for line in block]
    data = [value.removeprefix(b" ") for name, _, value in fields if name == b"data"]
    names = [value.removeprefix(b" ") for name, _, value in fields if name == b"event"]
    if not data:
        return Event(b"")
    return Event(b"", b"\n".join(data), names[-1].decode() if names else "")
