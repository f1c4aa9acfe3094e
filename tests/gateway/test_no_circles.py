"""What a miss leaves behind is freed at once: the collector of a gateway seldom looks."""

from __future__ import annotations

import gc

import pytest

from gateway.conftest import Running
from thinkonce.engine.asking import Asking
from thinkonce.engine.fetch import Fetch
from thinkonce.engine.http import Call
from thinkonce.flights.flight import Flight

HELD = (Asking, Call, Fetch, Flight)


@pytest.fixture
def circles():
    """Gives what only the collector can free, of the kinds that hold bodies."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:

        def found():
            gc.collect()
            return [type(thing).__name__ for thing in gc.garbage if isinstance(thing, HELD)]

        yield found
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_miss_leaves_no_circle(gateway: Running, circles, stream: bool) -> None:
    for number in range(3):
        got = await gateway.chat(f"question {number}", stream=stream)
        assert got.status == 200
    assert circles() == []
