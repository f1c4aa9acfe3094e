"""Blocks in files: found again to the bit, by whoever opens the folder, and never wrong."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from hashlib import blake2b
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinkonce.errors import ConfigError
from thinkonce.kv.disk import tier as module
from thinkonce.kv.disk.rows import ROW, Kind, read_rows, row_of
from thinkonce.kv.disk.tier import DiskTier
from thinkonce.kv.prefix.blocks import Block
from thinkonce.testing import FakeClock

MODEL = b"m" * 32
STATE = 5000  # bytes of a block's state
RECORD = 8192  # what it takes with its head, aligned
LONG = 20.0


def chain(length: int, name: str = "a") -> list[Block]:
    """The blocks of one prompt."""
    found, parent = [], bytes(16)
    for number in range(length):
        tokens = f"{name} {number}".encode().ljust(64)
        found.append(Block(blake2b(parent + tokens, digest_size=16).digest(), parent, tokens))
        parent = found[-1].id
    return found


def state_of(block: Block) -> bytes:
    return (block.id * (STATE // 16 + 1))[:STATE]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    with ExitStack() as stack:
        yield Opened(tmp_path / "kv", stack)


class Opened:
    """Opens tiers on one folder, each as a process of its own would."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self._stack = folder, stack

    def __call__(self, max_bytes: int = 2**24, **options: object) -> DiskTier:
        tier = DiskTier(self.folder, MODEL, max_bytes, **options)  # type: ignore[arg-type]
        self._stack.callback(tier.close)
        return tier

    def files(self, ending: str) -> list[Path]:
        return sorted(self.folder.rglob(f"*.{ending}"))


def keep(tier: DiskTier, blocks: list[Block]) -> None:
    for block in blocks:
        assert tier.offer(block, memoryview(state_of(block)))
    assert tier.flush(LONG)
    tier.used(blocks)


def loaded(tier: DiskTier, blocks: list[Block]) -> int:
    """How many of a path come back, each as it was."""
    for count, block in enumerate(blocks[: tier.known(blocks)]):
        state = tier.load(block)
        if state is None:
            return count
        assert state == state_of(block), "another block's state, or a damaged one"
    return tier.known(blocks)


def test_what_was_offered_is_found_and_comes_back_as_it_was(opened: Opened) -> None:
    tier, blocks = opened(), chain(5)
    assert tier.known(blocks) == 0
    keep(tier, blocks[:3])
    assert tier.known(blocks) == loaded(tier, blocks) == 3
    assert tier.known(chain(5, "other")) == 0
    stats = tier.stats()
    assert (stats.blocks, stats.written, stats.dropped, stats.damaged) == (3, 3, 0, 0)
    assert 3 * STATE < stats.bytes < 3 * RECORD


def test_a_restart_finds_all_of_it(opened: Opened) -> None:
    first, blocks = opened(), chain(40)
    keep(first, blocks)
    first.close()
    second = opened()
    assert loaded(second, blocks) == 40
    keep(second, chain(3, "more"))
    second.close()
    third = opened()
    assert (loaded(third, blocks), loaded(third, chain(3, "more"))) == (40, 3)
    assert len(opened.files("rows")) == 1, "who comes later goes on with the files that are there"


def test_another_model_finds_nothing(opened: Opened, tmp_path: Path) -> None:
    keep(opened(), chain(2))
    with_other = DiskTier(opened.folder, b"n" * 32, 2**24)
    try:
        assert with_other.known(chain(2)) == 0
    finally:
        with_other.close()


def test_files_are_their_owner_s_alone(opened: Opened) -> None:
    keep(opened(), chain(2))
    for path in [opened.folder, *opened.folder.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_two_processes_find_what_either_wrote(opened: Opened, clock: FakeClock) -> None:
    one, other = opened(clock=clock.clock), opened(clock=clock.clock)
    keep(one, chain(3))
    assert loaded(other, chain(3)) == 3
    keep(other, chain(2, "b"))
    clock.advance(module.LOOK_AGAIN)
    assert loaded(one, chain(2, "b")) == 2
    keep(other, chain(4, "b")[2:])
    assert loaded(one, chain(4, "b")) == 4, "what is followed is looked at each time"
    assert len(opened.files("rows")) == 2


def test_a_budget_is_kept_and_the_end_of_the_oldest_path_goes_first(opened: Opened) -> None:
    tier = opened(max_bytes=20 * STATE)
    old, young = chain(8, "old"), chain(8, "young")
    keep(tier, old)
    keep(tier, young)
    tier.used(old[:4])
    keep(tier, chain(8, "new"))
    assert tier.stats().bytes <= 20 * STATE
    assert loaded(tier, chain(8, "new")) == 8
    assert 4 <= loaded(tier, old) < 8, "what was used lately stays, from the root on"
    assert loaded(tier, young) < 8


def test_segments_that_are_half_empty_are_written_anew(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thinkonce.kv.disk.segment.SEGMENT_BYTES", 4 * RECORD)
    tier = opened(max_bytes=30 * STATE)
    kept = chain(6, "kept")
    keep(tier, kept)
    for number in range(20):
        keep(tier, chain(6, f"{number}"))
        tier.used(kept)
    assert loaded(tier, kept) == 6
    taken = sum(path.stat().st_size for path in opened.files("blocks"))
    assert taken < 2 * 30 * RECORD + 4 * RECORD
    tier.close()
    assert loaded(opened(max_bytes=30 * STATE), kept) == 6


def test_rows_that_nobody_needs_go_too(opened: Opened) -> None:
    tier = opened(max_bytes=5 * STATE)
    for number in range(30):
        keep(tier, [block for at in range(50) for block in chain(1, f"{50 * number + at}")])
    (rows,) = opened.files("rows")
    assert rows.stat().st_size < 1400 * ROW.itemsize
    tier.close()
    assert loaded(opened(max_bytes=5 * STATE), chain(1, "1499")) == 1


def test_what_an_ended_process_left_goes_before_what_is_used(opened: Opened) -> None:
    first, second = opened(), opened()
    keep(second, chain(10, "left"))
    second.close()
    first.close()
    third = opened(max_bytes=12 * STATE)
    keep(third, chain(4, "mine"))
    assert loaded(third, chain(4, "mine")) == 4
    assert third.stats().bytes <= 12 * STATE


@given(data=st.data())
@settings(max_examples=40)
def test_one_changed_byte_is_never_served(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, blocks = tmp_path_factory.mktemp("changed"), chain(3)
    with ExitStack() as stack:
        here = Opened(folder, stack)
        keep(here(), blocks)
        stack.pop_all().close()
        path = data.draw(st.sampled_from(here.files("blocks") + here.files("rows")))
        raw = bytearray(path.read_bytes())
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] ^= data.draw(st.integers(1, 255))
        path.write_bytes(raw)
        tier = here()
        for block in blocks:
            assert tier.load(block) in (None, bytearray(state_of(block)))


@settings(max_examples=25)
@given(length=st.integers(0, 3 * ROW.itemsize))
def test_a_torn_end_of_rows_is_cut(length: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder, blocks = tmp_path_factory.mktemp("torn"), chain(3)
    with ExitStack() as stack:
        here = Opened(folder, stack)
        keep(here(), blocks)
        stack.pop_all().close()
        (rows,) = here.files("rows")
        os.truncate(rows, length)
        tier = here()
        assert loaded(tier, blocks) == length // ROW.itemsize
        keep(tier, blocks)
        assert loaded(tier, blocks) == 3


def test_a_row_that_was_never_written_is_none(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    good = row_of(b"i" * 16, b"p" * 16, Kind.LIVE, 1, 4096, 77)
    path.write_bytes(good.tobytes() + bytes(2 * ROW.itemsize))
    assert len(read_rows(path)) == 1


def test_a_damaged_block_stays_away_after_a_restart(
    opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    tier, blocks = opened(), chain(2)
    keep(tier, blocks)
    (path,) = opened.files("blocks")
    raw = bytearray(path.read_bytes())
    raw[RECORD + 200] ^= 1
    path.write_bytes(raw)
    assert (tier.load(blocks[1]), tier.known(blocks), tier.stats().damaged) == (None, 1, 1)
    assert "damaged" in caplog.text
    assert tier.flush(LONG)
    tier.close()
    assert opened().known(blocks) == 1


def test_a_folder_that_vanished_is_a_miss(opened: Opened) -> None:
    tier, blocks = opened(), chain(2)
    keep(tier, blocks)
    tier._reader.close()
    for path in opened.files("blocks"):
        path.unlink()
    assert tier.load(blocks[0]) is None
    assert tier.stats().failures == 1


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """Writes fail, as on a full disk. Python ignores the signal that comes with it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_costs_what_is_new_and_nothing_else(
    opened: Opened, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    tier, old = opened(clock=clock.clock), chain(3)
    keep(tier, old)
    with no_file_above(3 * RECORD + 100):
        assert tier.offer(chain(1, "new")[0], memoryview(state_of(chain(1, "new")[0])))
        assert tier.flush(LONG)
    assert tier.known(chain(1, "new")) == 0
    assert loaded(tier, old) == 3
    assert not tier.offer(chain(1, "b")[0], memoryview(b"x")), "it is left alone for a while"
    assert (tier.stats().failures, tier.stats().dropped) == (1, 2)
    assert "not written for 30 s" in caplog.text
    clock.advance(module.TRY_AGAIN)
    keep(tier, chain(2, "new"))
    tier.close()
    again = opened()
    assert (loaded(again, old), loaded(again, chain(2, "new"))) == (3, 2)


def test_what_the_queue_has_no_room_for_is_dropped_and_counted(opened: Opened) -> None:
    tier = opened(queue_bytes=STATE - 1)
    assert not tier.offer(chain(1)[0], memoryview(state_of(chain(1)[0])))
    assert (tier.stats().dropped, tier.known(chain(1))) == (1, 0)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"\[kv\] store.*a folder that this user may write"):
        DiskTier(tmp_path / "file", MODEL, 2**20)
