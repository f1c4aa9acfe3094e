"""What a store knows of its digests without asking the disk, and what makes it ask."""

import os

import pytest

from thinkonce.host.mapfile import HostFile, host_path
from thinkonce.testing import FakeClock
from thinkonce.testing.entries import entry_of, key_of
from thinkonce.tiers import known
from thinkonce.tiers.sqlite import SqliteTier

NAMES = [f"question {number}" for number in range(500)]


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def opened(tmp_path, clock):
    """Opens the store as one more process would: with a mapped file of its own."""
    made = []

    def opened():
        path = tmp_path / "answers.db"
        host = HostFile(host_path(path))
        tier = SqliteTier(path, secret=b"s" * 32, host=host, clock=clock.clock)
        made.append((tier, host))
        return tier

    yield opened
    for tier, host in made:
        tier.close()
        host.close()


def put(tier, clock, *names):
    for name in names:
        tier.put(key_of(name), entry_of(clock, name))
    assert tier.flush(5)


def lacked(tier, names):
    return [name for name in names if tier.lacks(key_of(name))]


def test_before_anything_is_learnt_nothing_is_said_to_lack(opened, clock):
    tier = opened()
    assert not tier.lacks(key_of("never asked"))


def test_after_the_first_write_what_is_not_there_is_known_and_what_is_is_not_denied(opened, clock):
    tier = opened()
    put(tier, clock, *NAMES)
    assert lacked(tier, NAMES) == []
    strangers = [f"stranger {number}" for number in range(500)]
    assert len(lacked(tier, strangers)) > 490


def test_rows_of_an_earlier_process_are_learnt_piece_by_piece(opened, clock, monkeypatch):
    put(opened(), clock, *NAMES)
    monkeypatch.setattr(known, "PIECE", 7)
    later = opened()
    put(later, clock, "the first write of this process")
    later.tidy()
    assert lacked(later, NAMES) == []
    assert later.lacks(key_of("stranger"))


def test_a_queued_write_is_not_denied_before_it_is_committed(opened, clock):
    tier = opened()
    put(tier, clock, "first")
    tier.put(key_of("second"), entry_of(clock, "second"))
    assert not tier.lacks(key_of("second"))


def test_what_another_process_commits_is_not_denied(opened, clock):
    here, there = opened(), opened()
    put(here, clock, "here")
    assert here.lacks(key_of("there"))
    put(there, clock, "there")
    assert not here.lacks(key_of("there"))
    assert here.lacks(key_of("nowhere"))


def test_one_that_fell_behind_the_news_asks_until_it_has_learnt_anew(opened, clock):
    here, there = opened(), opened()
    put(here, clock, "here")
    there._database.host.written[0] += len(there._database.host.news)  # so much was written
    assert not here.lacks(key_of("nowhere"))
    put(here, clock, "again")
    assert here.lacks(key_of("nowhere"))


def test_a_filter_that_is_full_is_begun_anew_with_more_room(opened, clock, monkeypatch):
    monkeypatch.setattr(known, "LEAST_ROOM", 64)
    tier = opened()
    put(tier, clock, *NAMES)
    put(tier, clock, "one more")
    strangers = [f"stranger {number}" for number in range(500)]
    assert lacked(tier, NAMES) == []
    assert len(lacked(tier, strangers)) > 450


def test_of_a_file_that_took_the_place_of_another_nothing_is_denied(opened, clock, tmp_path):
    tier = opened()
    put(tier, clock, "old")
    other = tmp_path / "other"
    other.mkdir()
    host = HostFile(host_path(other / "answers.db"))
    backup = SqliteTier(other / "answers.db", secret=b"s" * 32, host=host, clock=clock.clock)
    put(backup, clock, "of the backup")
    backup.close()
    host.close()
    for ending in ("-wal", "-shm"):
        (tmp_path / f"answers.db{ending}").unlink(missing_ok=True)
    os.replace(other / "answers.db", tmp_path / "answers.db")
    put(tier, clock, "new")
    tier.tidy()
    assert lacked(tier, ["of the backup", "new"]) == []
    assert tier.get(key_of("of the backup")) is not None
