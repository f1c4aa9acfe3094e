"""Tenants take turns of a place that only one can hold."""

from __future__ import annotations

import asyncio

import pytest

from thinkonce.kv.serving.line.turns import Turns


async def test_who_asks_for_much_waits_for_itself() -> None:
    turns, order, go_on = Turns(), list[str](), asyncio.Event()

    async def work(tenant: str) -> None:
        async with turns.turn(tenant):
            order.append(tenant)
            await go_on.wait()

    tasks = [asyncio.create_task(work(tenant)) for tenant in "aaaaabbc"]
    await asyncio.sleep(0)
    go_on.set()
    async with asyncio.timeout(10):
        await asyncio.gather(*tasks)
    assert "".join(order) == "aabcabaa"


async def test_who_leaves_while_it_waits_holds_nobody_up() -> None:
    turns, order = Turns(), list[str]()

    async def work(tenant: str) -> None:
        async with turns.turn(tenant):
            order.append(tenant)

    async with asyncio.timeout(10):
        async with turns.turn("a"):
            gone, other = (asyncio.create_task(work(tenant)) for tenant in "bc")
            await asyncio.sleep(0)
            gone.cancel()
        await other
        await work("d")
    assert order == ["c", "d"]
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_a_turn_that_comes_to_one_who_just_left_goes_on_to_the_next() -> None:
    turns, order = Turns(), list[str]()

    async def work(tenant: str) -> None:
        async with turns.turn(tenant):
            order.append(tenant)

    async with asyncio.timeout(10):
        async with turns.turn("a"):
            gone, other = (asyncio.create_task(work(tenant)) for tenant in "bc")
            await asyncio.sleep(0)
        gone.cancel()  # its turn has come; it has not run since
        await other
    assert order == ["c"]
