"""Bodies read line by line: borders anywhere, lines of any length, clients that leave."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkonce.engine.http import Call, ClientGone, Message
from thinkonce.web.lines import Line, lines_of, reading_ahead


def call_of(pieces: Sequence[bytes], *, leaves: bool = False) -> Call:
    messages: list[Message] = [
        {"type": "http.request", "body": piece, "more_body": True} for piece in pieces
    ]
    end: Message = {"type": "http.disconnect"} if leaves else {"type": "http.request"}
    script = iter([*messages, end])

    async def receive() -> Message:
        message = next(script, None)
        if message is None:
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]
        return message

    async def send(_: Message) -> None:
        raise AssertionError("nothing is answered here")

    scope = {"headers": [], "query_string": b"", "method": "POST", "path": "/", "state": {}}
    return Call(scope, receive, send, 0.0)


async def read(call: Call, limit: int = 100) -> list[Line]:
    return [line async for line in lines_of(call, limit)]


@given(
    lines=st.lists(st.binary(max_size=12).map(lambda raw: raw.replace(b"\n", b"")), max_size=6),
    cuts=st.lists(st.integers(0, 60), max_size=5),
    ended=st.booleans(),
)
def test_borders_of_pieces_change_nothing(lines: list[bytes], cuts: list[int], ended: bool) -> None:
    body = b"\n".join(lines) + (b"\n" if ended else b"")
    places = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    pieces = [body[a:b] for a, b in pairwise(places)]
    expected = [
        (number, None if len(line) > 8 else line)
        for number, line in enumerate(lines, start=1)
        if len(line) > 8 or line.strip()
    ]
    assert asyncio.run(read(call_of(pieces), 8)) == expected


async def test_a_line_too_long_is_named_without_being_held() -> None:
    call = call_of([b"x" * 60] * 50 + [b"\nshort\n"])
    assert await read(call) == [(1, None), (2, b"short")]


async def test_the_last_line_may_be_the_one_too_long() -> None:
    assert await read(call_of([b"ok\n", b"x" * 60, b"x" * 60])) == [(1, b"ok"), (2, None)]


async def test_a_client_that_leaves_in_the_middle_is_no_end() -> None:
    with pytest.raises(ClientGone):
        await read(call_of([b"one\n"], leaves=True))


async def test_who_reads_ahead_notices_a_client_that_leaves_before_its_lines_are_taken() -> None:
    async with reading_ahead(call_of([b"one\n", b"two\n"], leaves=True)) as ahead:
        await asyncio.wait_for(ahead.gone, 10)
        assert (await ahead.receive())["body"] == b"one\n"
        assert (await ahead.receive())["body"] == b"two\n"
        assert (await ahead.receive())["type"] == "http.disconnect"


async def test_who_reads_ahead_reads_a_bounded_way_ahead() -> None:
    pieces = iter([b"x" * 10] * 100)
    taken = 0

    async def receive() -> Message:
        nonlocal taken
        taken += 1
        return {"type": "http.request", "body": next(pieces), "more_body": True}

    call = call_of([])
    call.receive = receive
    async with reading_ahead(call, 25) as ahead:
        await ahead.receive()
        await asyncio.wait({ahead.gone}, timeout=0)
        assert taken <= 4
        for _ in range(20):
            await ahead.receive()
        assert 20 <= taken <= 25
