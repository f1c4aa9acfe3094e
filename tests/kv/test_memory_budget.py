"""One budget for blocks and for sequences under way: never exceeded, changed while running."""

from __future__ import annotations

import pytest
import torch

from thinkonce.kv.generation.generator import TooLong
from thinkonce.kv.generation.slab import KvShape, Slab
from thinkonce.kv.generation.slabs import Slabs
from thinkonce.kv.prefix.blocks import Block, blocks_of
from thinkonce.kv.prefix.index import PrefixIndex
from thinkonce.kv.prefix.owner import NOBODY

SHAPE = KvShape(2, 1, 8, torch.float32, torch.device("cpu"))
STEP = 256 * SHAPE.bytes_a_token  # what slabs grow by
BLOCK = STEP // 16


def some_blocks(count: int, seed: int = 0) -> list[Block]:
    tokens = [seed + place for place in range(16 * count)]
    return list(blocks_of(tokens, 16, bytes(32), NOBODY))


def filled(memory: int, blocks: int) -> tuple[Slabs, PrefixIndex[torch.Tensor]]:
    index: PrefixIndex[torch.Tensor] = PrefixIndex(memory)
    slabs = Slabs(SHAPE, index, memory)
    with index.hold([]) as hold:
        for block in some_blocks(blocks):
            hold.extend(block, torch.empty(0), BLOCK)
    return slabs, index


def held(slabs: Slabs, index: PrefixIndex[torch.Tensor]) -> int:
    index.check()
    return slabs.bytes + index.stats().bytes


def taken(slabs: Slabs, tokens: int) -> Slab:
    slab = slabs.take(tokens)
    assert slab is not None
    return slab


def test_blocks_make_room_for_a_sequence_and_get_it_back() -> None:
    slabs, index = filled(4 * STEP, blocks=64)
    assert held(slabs, index) == 4 * STEP
    slab = taken(slabs, 300)
    assert slab.capacity == 512
    assert held(slabs, index) == 4 * STEP
    assert index.stats().bytes == 2 * STEP
    slabs.give_back(slab)
    assert slabs.bytes == 0, "a spare slab of half the budget is not kept"
    assert index.stats().max_bytes == 4 * STEP


def test_a_small_slab_is_used_again_and_counted_while_it_is_spare() -> None:
    slabs, index = filled(16 * STEP, blocks=0)
    first = taken(slabs, 200)
    slabs.give_back(first)
    assert slabs.bytes == STEP
    assert index.stats().max_bytes == 15 * STEP
    assert taken(slabs, 100) is first
    assert taken(slabs, 100) is not first


def test_a_sequence_waits_while_others_hold_the_memory() -> None:
    slabs, index = filled(4 * STEP, blocks=8)
    first = taken(slabs, 600)
    assert slabs.take(600) is None
    assert held(slabs, index) <= 4 * STEP
    slabs.give_back(first)
    assert slabs.take(600) is not None


def test_what_a_reading_stands_on_is_not_taken_away_for_another() -> None:
    slabs, index = filled(4 * STEP, blocks=32)
    with index.hold(some_blocks(32)) as hold:
        assert len(hold.nodes) == 32
        assert slabs.take(600) is None
        assert len(hold.nodes) == index.stats().blocks == 32
        assert slabs.take(512) is not None


def test_a_sequence_that_can_never_fit_is_refused_in_numbers() -> None:
    slabs, _ = filled(4 * STEP - 1, blocks=0)
    assert slabs.most_tokens == 768
    with pytest.raises(TooLong) as caught:
        slabs.take(769)
    said = str(caught.value)
    for number in (769, 4 * STEP, 4 * STEP - 1, 768):
        assert str(number) in said
    assert slabs.take(768) is not None


def test_the_budget_changes_while_sequences_are_under_way() -> None:
    slabs, index = filled(8 * STEP, blocks=32)
    slab = taken(slabs, 512)
    slabs.resize(3 * STEP)
    assert held(slabs, index) <= 3 * STEP
    slabs.resize(STEP)
    assert (slabs.bytes, index.stats().bytes) == (2 * STEP, 0), "it keeps what it has"
    slabs.give_back(slab)
    assert held(slabs, index) <= STEP
    with pytest.raises(TooLong):
        slabs.take(257)
    slabs.resize(8 * STEP)
    assert taken(slabs, 512).capacity == 512


def test_memory_that_the_machine_has_not_is_nobody_s(monkeypatch: pytest.MonkeyPatch) -> None:
    slabs, index = filled(4 * STEP, blocks=16)

    def none_left(shape: KvShape, tokens: int) -> torch.Tensor:
        if tokens:
            raise MemoryError
        return torch.empty(0, 2, 0, 0, 0)

    with monkeypatch.context() as patch:
        patch.setattr(KvShape, "empty", none_left)
        with pytest.raises(MemoryError):
            slabs.take(256)
    assert (slabs.bytes, slabs.under_way) == (0, 0)
    assert index.stats().max_bytes == 4 * STEP
    assert slabs.take(256) is not None
