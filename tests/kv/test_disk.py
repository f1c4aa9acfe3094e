"""Blocks in files: found again to the bit, by whoever opens the folder, and never wrong."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from hashlib import blake2b
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinkonce.errors import ConfigError
from thinkonce.kv.disk import holdings
from thinkonce.kv.disk import tier as module
from thinkonce.kv.disk.record import Plain
from thinkonce.kv.disk.rows import HEAD, ROW, Kind, read_rows, row_of
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
    clock.advance(holdings.LOOK_AGAIN)
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
@given(length=st.integers(0, 7 * ROW.itemsize))
def test_a_torn_end_of_rows_is_cut(length: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder, blocks = tmp_path_factory.mktemp("torn"), chain(3)
    with ExitStack() as stack:
        here = Opened(folder, stack)
        keep(here(), blocks)
        stack.pop_all().close()
        (rows,) = here.files("rows")
        os.truncate(rows, length)
        tier = here()
        # Before the blocks: what says which form this is, and three words of their owner.
        assert loaded(tier, blocks) == max(0, length // ROW.itemsize - 4)
        keep(tier, blocks)
        assert loaded(tier, blocks) == 3


def test_a_row_that_was_never_written_is_none(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    good = row_of(b"i" * 16, b"p" * 16, Kind.LIVE, segment=1, offset=4096, length=77)
    path.write_bytes(HEAD + good.tobytes() + bytes(2 * ROW.itemsize))
    with path.open("rb") as file:
        assert len(read_rows(file.fileno())) == 1


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
    tier._files.reader.close()
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


def test_a_budget_holds_for_files_and_not_only_for_what_is_live_in_them(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thinkonce.kv.disk.segment.SEGMENT_BYTES", 10 * RECORD)
    budget = 100 * RECORD
    tier = opened(max_bytes=budget)
    kept = [chain(1, f"kept {number}")[0] for number in range(60)]
    for number, block in enumerate(kept):  # one of these and one that goes, side by side
        keep(tier, [block, *chain(1, f"gone {number}")])
    tier.forget([chain(1, f"gone {number}")[0].id for number in range(0, 60, 3)])
    assert tier.flush(LONG)
    taken = sum(path.stat().st_size for path in opened.files("blocks"))
    assert taken <= 100 * RECORD + (holdings.DEAD_SHARE * budget) + 10 * RECORD
    assert all(tier.known([block]) for block in kept)


def test_a_folder_that_was_removed_is_made_anew_and_kept_from_then_on(
    opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    tier = opened()
    keep(tier, chain(3))
    shutil.rmtree(opened.folder)
    keep(tier, chain(2, "b"))
    assert "went away" in caplog.text
    assert (loaded(tier, chain(3)), loaded(tier, chain(2, "b"))) == (0, 2)
    tier.close()
    assert loaded(opened(), chain(2, "b")) == 2


def test_files_that_are_not_ours_are_left_alone(opened: Opened) -> None:
    tier, blocks = opened(), chain(2)
    keep(tier, blocks)
    for name in ("9x.rows", "0001-notes.blocks", "12345.rows"):
        (tier._files.folder.path / name).write_text("mine")
    assert tier.known(chain(3, "other")) == 0, "a look at other processes' files"
    keep(tier, chain(2, "b"))
    tier.close()
    assert loaded(opened(), blocks) == 2
    assert (tier._files.folder.path / "0001-notes.blocks").read_text() == "mine"


def test_whatever_goes_wrong_in_the_thread_it_goes_on(
    opened: Opened, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    tier = opened(clock=clock.clock)

    def broken(*_: object) -> bytes:
        raise ValueError("a mistake of ours")

    with monkeypatch.context() as patch:
        patch.setattr(Plain, "encoded", broken)
        assert tier.offer(chain(1)[0], memoryview(state_of(chain(1)[0])))
        assert tier.flush(LONG)
    assert (tier.stats().failures, tier.stats().dropped) == (1, 1)
    clock.advance(module.TRY_AGAIN)
    keep(tier, chain(2))
    assert loaded(tier, chain(2)) == 2


def test_what_a_full_disk_cut_short_takes_no_room(opened: Opened, clock: FakeClock) -> None:
    tier = opened(clock=clock.clock)
    keep(tier, chain(1))
    for number in range(3):
        block = chain(1, f"new {number}")[0]
        with no_file_above(RECORD + 100):
            assert tier.offer(block, memoryview(state_of(block) * 3))
            assert tier.flush(LONG)
        clock.advance(module.TRY_AGAIN)
    assert len(opened.files("blocks")) == 1
    assert loaded(tier, chain(1)) == 1


def test_a_lock_that_cannot_be_made_is_named(opened: Opened) -> None:
    (opened.folder / MODEL.hex() / "0001.lock").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"\[kv\] store.*Is a directory"):
        opened()


def test_a_record_that_its_process_moved_is_read_where_it_lies_now(
    opened: Opened, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thinkonce.kv.disk.segment.SEGMENT_BYTES", 4 * RECORD)
    one, other = opened(clock=clock.clock), opened(clock=clock.clock)
    blocks = chain(2, "kept")
    for number in range(2):
        keep(one, [blocks[number], *[chain(1, f"{number} {at}")[0] for at in range(3)]])
    assert other.known(blocks) == 2
    one.forget([chain(1, f"{number} {at}")[0].id for number in range(2) for at in range(3)])
    assert one.flush(LONG)
    keep(one, chain(4, "more"))
    assert loaded(other, blocks) == 2
    assert other.stats().failures == 0


def test_a_manifest_that_is_written_anew_again_and_again_is_followed(
    opened: Opened, clock: FakeClock
) -> None:
    one, other = opened(max_bytes=6 * STATE, clock=clock.clock), opened(clock=clock.clock)
    assert other.known(chain(1)) == 0
    for number in range(3):
        for at in range(300):
            keep(one, chain(1, f"{number} {at}"))
        one._files.manifest.replace(one._files.catalogue.live(one._files.writer))
        assert loaded(other, chain(1, f"{number} 299")) == 1
        assert len(other._files.catalogue) == len(one._files.catalogue)


def test_a_damaged_copy_of_another_process_does_not_hide_one_s_own(
    opened: Opened, clock: FakeClock
) -> None:
    one, other = opened(clock=clock.clock), opened(clock=clock.clock)
    block = chain(1)[0]
    for tier in (one, other):  # neither has looked at the other's meanwhile
        keep(tier, [block])
    (damaged,) = [path for path in opened.files("blocks") if path.name.startswith("0001")]
    raw = bytearray(damaged.read_bytes())
    raw[1000] ^= 1
    damaged.write_bytes(raw)
    other.close()
    again = opened(clock=clock.clock)
    assert again.known(chain(2)) == 1
    assert again.load(block) == state_of(block)


def test_what_is_forgotten_is_gone_for_all_and_after_a_restart(
    opened: Opened, clock: FakeClock
) -> None:
    one, other, left = (opened(clock=clock.clock) for _ in range(3))
    for number, tier in enumerate((one, other, left)):
        keep(tier, chain(2, f"{number}"))
    left.close()
    clock.advance(holdings.LOOK_AGAIN)
    assert [loaded(one, chain(2, f"{number}")) for number in range(3)] == [2, 2, 2]
    assert other.known(chain(3, "0")) == 2
    assert one.forget([chain(2, f"{number}")[1].id for number in range(3)]) == 3
    assert [one.known(chain(2, f"{number}")) for number in range(3)] == [1, 1, 1]
    assert one.flush(LONG)
    clock.advance(holdings.LOOK_AGAIN)
    assert other.known(chain(3, "none")) == 0, "it looks"
    assert other.flush(LONG)
    assert [other.known(chain(2, f"{number}")) for number in range(3)] == [1, 1, 1]
    one.close()
    other.close()
    again, *_ = (opened(clock=clock.clock) for _ in range(3))
    clock.advance(holdings.LOOK_AGAIN)
    assert [again.known(chain(2, f"{number}")) for number in range(3)] == [1, 1, 1]


def test_all_is_forgotten_and_room_given_back(opened: Opened) -> None:
    tier = opened()
    keep(tier, chain(9))
    for block in chain(3, "waiting"):
        tier.offer(block, memoryview(state_of(block)))
    tier.forget()
    assert tier.flush(LONG)
    assert tier.known(chain(9)) == tier.known(chain(3, "waiting")) == tier.stats().blocks == 0
    keep(tier, chain(1, "next"))
    tier.close()
    assert len(opened()._files.catalogue) == 1
