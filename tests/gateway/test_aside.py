"""Looks into the store beside the event loop: several in one turn of a thread."""

from __future__ import annotations

import asyncio
import threading

import pytest

from thinkonce.engine.aside import LANES, Aside

PATIENCE = 10.0


async def test_calls_that_come_together_go_together() -> None:
    aside, turns = Aside(), []

    def work(number: int) -> int:
        turns.append(threading.get_ident())
        return number

    async with asyncio.timeout(PATIENCE):
        got = await asyncio.gather(*[aside.call(lambda n=n: work(n)) for n in range(5)])
    assert got == [0, 1, 2, 3, 4]
    assert len(set(turns)) == 1
    assert turns[0] != threading.get_ident()


async def test_an_error_is_only_for_who_asked() -> None:
    aside = Aside()

    def fail() -> None:
        raise OSError("the disk is gone")

    async with asyncio.timeout(PATIENCE):
        one, two = await asyncio.gather(
            aside.call(fail), aside.call(lambda: 2), return_exceptions=True
        )
    assert isinstance(one, OSError)
    assert two == 2


async def test_a_call_that_waits_for_the_disk_does_not_hold_up_the_next() -> None:
    aside, stalled, goes_on = Aside(), threading.Event(), threading.Event()

    def stall() -> str:
        stalled.set()
        assert goes_on.wait(PATIENCE)
        return "late"

    async with asyncio.timeout(PATIENCE):
        late = asyncio.ensure_future(aside.call(stall))
        await asyncio.to_thread(stalled.wait, PATIENCE)
        assert await aside.call(lambda: "soon") == "soon"
        assert not late.done()
        goes_on.set()
        assert await late == "late"


async def test_where_all_lanes_wait_the_rest_goes_in_one_turn_behind_them() -> None:
    aside, goes_on, turns = Aside(), threading.Event(), []
    begun = threading.Semaphore(0)

    def stall() -> None:
        begun.release()
        assert goes_on.wait(PATIENCE)

    async with asyncio.timeout(PATIENCE):
        late = []
        for _ in range(LANES):
            late.append(asyncio.ensure_future(aside.call(stall)))
            await asyncio.to_thread(begun.acquire)
        rest = [
            asyncio.ensure_future(aside.call(lambda: turns.append(threading.get_ident())))
            for _ in range(3)
        ]
        await asyncio.sleep(0)
        assert not turns
        goes_on.set()
        await asyncio.gather(*late, *rest)
    assert len(turns) == 3
    assert len(set(turns)) == 1


async def test_who_leaves_takes_nothing_from_the_others() -> None:
    aside = Aside()
    async with asyncio.timeout(PATIENCE):
        gone = asyncio.ensure_future(aside.call(lambda: 1))
        stays = asyncio.ensure_future(aside.call(lambda: 2))
        await asyncio.sleep(0)
        gone.cancel()
        assert await stays == 2
    with pytest.raises(asyncio.CancelledError):
        await gone
