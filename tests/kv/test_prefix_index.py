"""The tree of prefixes: what is found, what stays, what goes first, and that it adds up."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from thinkonce.clock import Clock
from thinkonce.kv.prefix.blocks import Block, blocks_of
from thinkonce.kv.prefix.index import Hold, PrefixIndex
from thinkonce.kv.prefix.owner import Owner
from thinkonce.kv.prefix.terms import Terms

CHUNK, SIZE = 4, 100
MODEL, ALICE = bytes(32), Owner("alice")


def chain(text: str, owner: Owner = ALICE) -> list[Block]:
    """Blocks of a prompt that is written as letters, one a chunk."""
    tokens = [ord(letter) for letter in text for _ in range(CHUNK)]
    return list(blocks_of(tokens, CHUNK, MODEL, owner))


def ticking() -> Clock:
    seconds: Iterator[int] = iter(range(10**6))
    return Clock(wall=lambda: 0.0, monotonic=lambda: float(next(seconds)))


def index_of(blocks: int) -> PrefixIndex[str]:
    return PrefixIndex(blocks * SIZE, clock=ticking())


def read(index: PrefixIndex[str], text: str, owner: Owner = ALICE) -> int:
    """One request: how many blocks of it were known; the others are kept if there is room."""
    blocks = chain(text, owner)
    with index.hold(blocks) as hold:
        known = len(hold.nodes)
        for place, block in enumerate(blocks[known:], start=known):
            if not hold.extend(block, text[: place + 1], SIZE):
                break
    index.check()
    return known


def states(index: PrefixIndex[str], text: str) -> list[str]:
    with index.hold(chain(text)) as hold:
        return [node.state for node in hold.nodes]


def test_what_two_prompts_share_lies_there_once() -> None:
    index = index_of(100)
    for number in range(20):
        read(index, "shared" + chr(ord("A") + number))
    assert index.stats().blocks == len("shared") + 20
    assert index.stats().bytes == index.stats().blocks * SIZE


class State:
    """What takes memory."""


@pytest.mark.parametrize("life", [None, 86_400.0])
def test_what_was_forgotten_takes_no_memory_any_more(life: float | None) -> None:
    index: PrefixIndex[State] = PrefixIndex(4 * SIZE, clock=ticking())
    living: weakref.WeakSet[State] = weakref.WeakSet()
    for number in range(50):
        for _ in range(3):  # each use lists the block anew
            with index.hold(chain(chr(200 + number)), ALICE, Terms(life=life)) as hold:
                if not hold.nodes:
                    state = State()
                    living.add(state)
                    hold.extend(*chain(chr(200 + number)), state, SIZE)
                    del state
    assert index.stats().evicted == 46
    assert len(living) == 4


def test_uses_of_blocks_with_a_life_are_not_listed_without_end() -> None:
    index = index_of(10)
    for _ in range(3000):
        with index.hold(chain("abc"), ALICE, Terms(life=86_400.0)) as hold:
            for place, block in enumerate(chain("abc")[len(hold.nodes) :]):
                hold.extend(block, "abc"[: place + 1], SIZE)
    assert len(index._expiries) < 2000


def test_the_longest_known_beginning_is_found() -> None:
    index = index_of(10)
    assert [read(index, text) for text in ("abc", "abc", "abd", "ab", "abdef", "xbc")] == [
        0, 3, 2, 2, 3, 0,
    ]  # fmt: skip
    assert states(index, "abdz") == ["a", "ab", "abd"]


def test_nothing_crosses_tenants() -> None:
    index = index_of(10)
    read(index, "abc")
    assert read(index, "abc", Owner("bob")) == 0
    assert read(index, "abc", Owner("alice", "drafts")) == 0


def test_a_block_whose_hash_is_known_but_whose_tokens_differ_is_no_hit() -> None:
    index = index_of(10)
    read(index, "ab")
    first, second = chain("ab")
    forged = [first, replace(second, tokens=b"\1" * len(second.tokens))]
    with index.hold(forged) as hold:
        assert [node.state for node in hold.nodes] == ["a"]
        assert not hold.extend(forged[1], "forged", SIZE), "nor does it take the other's place"
    with index.hold([first, replace(second, parent=bytes(16))]) as hold:
        assert len(hold.nodes) == 1
    assert index.stats().collisions == 3
    assert states(index, "ab") == ["a", "ab"]


def test_leaves_go_first_and_of_them_the_least_recently_used() -> None:
    index = index_of(4)
    read(index, "ab")
    read(index, "xy")
    read(index, "ab")
    read(index, "c")
    read(index, "d")
    assert states(index, "xy") == [], "the older path went, from its end"
    assert states(index, "ab") == ["a", "ab"]
    assert index.stats().evicted == 2


def test_of_one_path_the_end_goes_first() -> None:
    index = index_of(3)
    read(index, "abc")
    read(index, "x")
    assert states(index, "abc") == ["a", "ab"]


def test_a_parent_stays_as_long_as_a_child_that_is_used_stays() -> None:
    index = index_of(3)
    read(index, "abc")
    for letter in "xyz":
        assert read(index, f"ab{letter}") == 2
    assert states(index, "abz") == ["a", "ab", "abz"]


def test_what_a_request_needs_is_not_forgotten_under_it() -> None:
    index = index_of(3)
    read(index, "abc")
    with index.hold(chain("abc")) as hold:
        assert read(index, "x") == 0
        assert index.stats().refused == 1, "everything is pinned: the other is not kept"
        assert [node.state for node in hold.nodes] == ["a", "ab", "abc"]
    assert read(index, "x") == 0
    assert states(index, "abc") == ["a", "ab"]


def test_two_requests_on_one_prefix_pin_it_twice() -> None:
    index = index_of(2)
    read(index, "ab")
    first, second = index.hold(chain("ab")), index.hold(chain("ab"))
    first.release()
    first.release()
    read(index, "x")
    assert states(index, "ab") == ["a", "ab"], "the second still holds it"
    second.release()
    read(index, "x")
    assert states(index, "ab") == ["a"]


def test_a_block_that_another_request_kept_meanwhile_is_not_kept_twice() -> None:
    index = index_of(5)
    blocks = chain("ab")
    with index.hold(blocks) as slow:
        read(index, "ab")
        assert slow.extend(blocks[0], "later", SIZE)
        assert slow.extend(blocks[1], "later", SIZE)
        assert [node.state for node in slow.nodes] == ["a", "ab"]
    assert index.stats().bytes == 2 * SIZE


def test_a_prompt_larger_than_the_budget_keeps_its_beginning() -> None:
    index = index_of(2)
    assert read(index, "abcdef") == 0
    assert read(index, "abcdef") == 2
    assert index.stats().bytes == 2 * SIZE


def test_the_heap_stays_in_proportion() -> None:
    index = index_of(2)
    for _ in range(3000):
        index.hold(chain("a")).release()
        index.hold(chain("ab")).release()
        if not index.stats().blocks:
            read(index, "ab")
    assert len(index._rows) < 1100
    index.check()


class Model(RuleBasedStateMachine):
    """Requests that begin, grow and end in any order, against what a dictionary knows."""

    def __init__(self) -> None:
        super().__init__()
        self.index = index_of(6)
        self.open: list[tuple[str, Hold[str]]] = []

    @rule(text=st.text("abc", min_size=1, max_size=5))
    def begin(self, text: str) -> None:
        hold = self.index.hold(chain(text))
        assert [node.state for node in hold.nodes] == [
            text[: place + 1] for place in range(len(hold.nodes))
        ], "a block's state is that of its own prefix"
        self.open.append((text, hold))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def grow(self, data: st.DataObject) -> None:
        text, hold = data.draw(st.sampled_from(self.open))
        place = len(hold.nodes)
        if place < len(text):
            hold.extend(chain(text)[place], text[: place + 1], SIZE)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(self.open) - 1))
        self.open.pop(place)[1].release()

    @invariant()
    def adds_up(self) -> None:
        self.index.check()
        for _, hold in self.open:
            for node in hold.nodes:
                assert self.index._nodes[node.block.id] is node, "it was forgotten under a request"

    def teardown(self) -> None:
        for _, hold in self.open:
            hold.release()
        self.index.check()


TestAnyOrder = Model.TestCase
TestAnyOrder.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
