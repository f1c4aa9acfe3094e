"""How long blocks stay, and which go first."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from thinkonce.clock import Clock
from thinkonce.errors import RequestError
from thinkonce.kv.prefix.blocks import Block, blocks_of
from thinkonce.kv.prefix.ghosts import Ghosts
from thinkonce.kv.prefix.index import PrefixIndex
from thinkonce.kv.prefix.owner import Owner
from thinkonce.kv.prefix.terms import USUAL, Priority, Terms
from thinkonce.kv.serving.requests.breakpoints import life_asked

FIVE = Terms(life=300.0)
DAY = Terms(life=86_400.0)


class Hands:
    """A clock that stands still until it is turned."""

    def __init__(self) -> None:
        self.now = 0.0
        self.clock = Clock(wall=lambda: self.now, monotonic=lambda: self.now)


A, B = Owner("a"), Owner("b")


def path(*numbers: int, owner: Owner = A) -> list[Block]:
    return list(blocks_of(numbers, 1, b"model", owner))


def use(
    index: PrefixIndex[None], blocks: Sequence[Block], terms: Terms = USUAL, tenant: str = "a"
) -> int:
    """A request that reads and adds `blocks`, a byte each; how many it found."""
    with index.hold(blocks, Owner(tenant), terms) as hold:
        found = len(hold.nodes)
        for block in blocks[found:]:
            hold.extend(block, None, 1)
    index.check()
    return found


def test_what_nobody_used_for_its_life_is_not_found_and_takes_no_room() -> None:
    clock = Hands()
    ghosts = Ghosts(clock=clock.clock)
    index: PrefixIndex[None] = PrefixIndex(100, clock=clock.clock, ghosts=ghosts)
    use(index, path(1, 2, 3), FIVE)
    clock.now = 299.0
    assert use(index, path(1, 2), FIVE) == 2
    clock.now = 310.0
    assert index.stats().blocks == 2, "the third was not used again"
    clock.now = 599.0
    assert use(index, path(1, 2), FIVE) == 0
    assert index.stats().expired == 3
    assert index.stats().evicted == 0
    clock.now = 609.0
    found = [ghosts.find(block.id) for block in path(1, 2, 3)]
    told = [(gone.cause, ago) for gone, ago in filter(None, found)]
    ended = "since their lives ended, not since that was noticed"
    assert told == [("expired", 10.0)] * 2 + [("expired", 309.0)], ended


def test_the_longest_life_that_anybody_asked_for_counts() -> None:
    clock = Hands()
    index: PrefixIndex[None] = PrefixIndex(100, clock=clock.clock)
    use(index, path(1, 2), DAY)
    use(index, path(1, 3), FIVE)
    clock.now = 80_000.0
    assert use(index, path(1, 3), FIVE) == 1
    assert use(index, path(1, 2)) == 2
    clock.now = 1e9
    assert use(index, path(1, 2)) == 2, "who says nothing lets it stay until room is needed"


def test_what_a_request_stands_on_does_not_expire() -> None:
    clock = Hands()
    index: PrefixIndex[None] = PrefixIndex(100, clock=clock.clock)
    use(index, path(1, 2), FIVE)
    with index.hold(path(1, 2), A, FIVE):
        clock.now = 1000.0
        assert index.stats().blocks == 2
    assert use(index, path(1, 2), FIVE) == 2
    clock.now = 1300.0
    assert index.stats().blocks == 0


@pytest.mark.parametrize("priority", ["low", "medium"])
def test_the_lower_priority_goes_first(priority: Priority) -> None:
    clock = Hands()
    index: PrefixIndex[None] = PrefixIndex(8, clock=clock.clock)
    use(index, path(1), Terms(priority="high"))
    for number in range(2, 20):
        clock.now += 1
        use(index, path(number), Terms(priority=priority))
    assert use(index, path(1)) == 1


def test_a_tenant_raises_a_quarter_of_the_memory_and_no_more() -> None:
    clock = Hands()
    index: PrefixIndex[None] = PrefixIndex(8, clock=clock.clock)
    for number in range(8):
        clock.now += 1
        use(index, path(number), Terms(priority="pinned"))
    for number in range(100, 120):
        clock.now += 1
        use(index, path(number, owner=B), tenant="b")
    left = [number for number in range(8) if use(index, path(number))]
    assert left == [0, 1]


def test_a_purge_takes_a_whole_path_and_leaves_others() -> None:
    index: PrefixIndex[None] = PrefixIndex(100)
    use(index, path(1, 2, 3))
    use(index, path(1, 2, owner=B), tenant="b")
    assert len(index.purge(lambda owner: owner.tenant == "a")) == 3
    assert use(index, path(1, 2, owner=B), tenant="b") == 2
    assert use(index, path(1)) == 0


def test_breakpoints_say_how_long() -> None:
    part = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}
    longer = {**part, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    assert life_asked([{"role": "user", "content": "x"}]) is None
    assert life_asked([{"role": "user", "content": [part]}]) == 300.0
    assert life_asked([{"role": "user", "content": [part, longer]}]) == 3600.0
    assert life_asked([], tools=[longer]) == life_asked([], system=[longer]) == 3600.0


@pytest.mark.parametrize(
    "control", [{"type": "forever"}, {"type": "ephemeral", "ttl": "1d"}, "ephemeral", {"ttl": []}]
)
def test_a_breakpoint_that_is_not_known_is_named(control: object) -> None:
    with pytest.raises(RequestError, match=r"messages\[0\].content\[1\].cache_control"):
        life_asked([{"content": [{}, {"cache_control": control}]}])
