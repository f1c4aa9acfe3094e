"""The policy with a target: what it lets go first, and when it stops."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from thinkonce.kv.planning.replay import replayed
from thinkonce.kv.planning.trace import Request, Trace
from thinkonce.kv.prefix.eviction import UNUSED
from thinkonce.kv.prefix.policies.tail import Tail

STEP, BLOCKS, MOST = 10, 1000, 5000
LOOK = 256  # requests


@dataclass
class Leaf:
    id: bytes
    start: int
    rank: float = UNUSED


def path(name: str, blocks: int) -> list[Leaf]:
    return [Leaf(f"{name} {number}".encode(), number * STEP) for number in range(blocks)]


def grown(policy: Tail, turns: int = LOOK) -> list[Leaf]:
    """A conversation that grew by one block a turn; nothing else is known."""
    whole = path("talk", turns + 1)
    for turn in range(turns):
        policy.touch(whole[: turn + 2], float(turn))
    return whole


def shifts(policy: Tail, blocks: list[Leaf]) -> list[float]:
    return [policy.base.key(block)[0] - policy.key(block)[0] for block in blocks]


def test_without_a_target_the_order_is_that_of_guarded() -> None:
    policy = Tail(BLOCKS, MOST, lambda: 0.0)
    assert set(shifts(policy, grown(policy))) == {0.0}


def test_the_end_that_can_be_read_again_within_the_target_goes_first() -> None:
    policy = Tail(BLOCKS, MOST, lambda: 50.0)
    whole = grown(policy)
    found = shifts(policy, whole)
    # 50 tokens can be read, 10 of them are the next turn's: four blocks may be lost.
    assert found[:-4] == [0.0] * (len(whole) - 4)
    assert min(found[-4:]) == max(found[-4:]) > 0


def test_nothing_is_shifted_until_it_is_known_how_much_a_turn_adds() -> None:
    policy = Tail(BLOCKS, MOST, lambda: 50.0)
    assert set(shifts(policy, grown(policy, LOOK - 1))) == {0.0}


def test_a_conversation_whose_end_was_dropped_does_not_seem_shorter() -> None:
    policy = Tail(BLOCKS, MOST, lambda: 50.0)
    whole = grown(policy)
    policy.touch(whole[:100], 300.0)  # the rest is gone, and was not read again
    assert set(shifts(policy, whole[90:100])) == {0.0}


def test_a_shift_that_costs_more_than_it_may_is_halved_until_there_is_none() -> None:
    policy = Tail(BLOCKS, MOST, lambda: 50.0)
    grown(policy)
    found = []
    for round_ in range(8):
        for turn in range(LOOK):
            # What LRU would hold is not here, each time.
            policy.touch(path("other", 9), 1000.0 + LOOK * round_ + turn)
        found += shifts(policy, path("other", 9)[-1:])
    assert found[0] > found[1] > found[-1] == 0.0


def test_a_target_that_moves_orders_all_blocks_anew() -> None:
    tokens = [50.0]
    policy = Tail(BLOCKS, MOST, lambda: tokens[0])
    whole = grown(policy)
    turns, tokens[0] = policy.turns, 100.0
    policy.touch(whole, 400.0)
    assert policy.turns == turns + 1
    assert policy.key(whole[-9])[0] < policy.key(whole[-10])[0]


def mixed() -> Trace:
    """Long conversations that go on, among many short ones that do too."""
    asked = []
    for turn in range(60):
        for number in range(12):
            blocks = 40 + turn if number < 2 else 4 + turn // 8
            names = tuple(f"{number} {each}" for each in range(blocks))
            asked.append(Request(turn * 60.0 + number, blocks * STEP + 1, names))
    return Trace(asked, STEP)


@pytest.mark.parametrize("room", [120, 160])
def test_fewer_prompts_are_late_than_with_lru_where_long_ones_compete_with_short(room: int) -> None:
    half = len(mixed().requests) // 2
    late = {
        policy: replayed(mixed(), policy, room, 8 * STEP, half).late for policy in ("lru", "tail")
    }
    assert late["lru"] is not None
    assert late["tail"] is not None
    assert late["tail"] <= late["lru"]


def test_late_is_told_only_where_there_is_a_target() -> None:
    assert replayed(mixed(), "lru", 100).late is None
    assert replayed(mixed(), "lru", 10_000, 1000).late == 0.0
