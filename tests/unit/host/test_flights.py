"""The flight table: what is written down, and what is not believed."""

from __future__ import annotations

import os
import signal

import pytest

import places
from thinkonce.errors import TierError
from thinkonce.host.flights import FIXED, MAX_ADDRESS_BYTES, TAGS, FlightTable, bucket_of, slot_at
from thinkonce.host.mapfile import HostFile
from thinkonce.host.process import this_process

DIGEST = bytes(range(32))
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


@pytest.fixture
def host(tmp_path):
    file = HostFile(tmp_path / "a.host")
    yield file
    file.close()


@pytest.fixture
def table(host):
    return FlightTable(host)


def test_a_claim_says_where_its_owner_listens(table):
    ours = table.claim(DIGEST, b"/run/a.sock", now=0.0, until=60.0)
    theirs = table.claim(DIGEST, b"/run/b.sock", now=59.9, until=99.0)
    assert (ours.ours, theirs.ours) == (True, False)
    assert (theirs.address, theirs.owner, theirs.until) == (b"/run/a.sock", this_process(), 60.0)


def test_an_owner_that_outlives_its_lease_is_replaced_and_cannot_release_the_new(table):
    old = table.claim(DIGEST, b"/a", now=0.0, until=60.0)
    new = table.claim(DIGEST, b"/b", now=60.0, until=120.0)
    assert new.ours, "a lease is over at its end, not after it"
    assert not table.release(old)
    assert not table.renew(old, 999.0)
    assert places.find(table, DIGEST, 61.0).address == b"/b"


@forks
def test_a_killed_owner_is_replaced_even_while_nobody_has_collected_it(table):
    child = os.fork()
    if child == 0:
        table.claim(DIGEST, b"/child", now=0.0, until=1e9)
        os.kill(os.getpid(), signal.SIGKILL)
    # WNOWAIT leaves the zombie: its id is taken, but it runs no more.
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    try:
        assert next(iter(places.claims(table))).owner.pid == child
        claim = table.claim(DIGEST, b"/parent", now=1.0, until=60.0)
        assert claim.ours
    finally:
        os.waitpid(child, 0)


@forks
def test_a_living_owner_is_not(table):
    ready, tell = os.pipe()
    end, go = os.pipe()
    child = os.fork()
    if child == 0:
        table.claim(DIGEST, b"/child", now=0.0, until=1e9)
        os.write(tell, b"x")
        os.read(end, 1)
        os._exit(0)
    os.read(ready, 1)
    try:
        found = table.claim(DIGEST, b"/parent", now=1.0, until=60.0)
        assert (found.ours, found.address) == (False, b"/child")
    finally:
        os.write(go, b"x")
        os.waitpid(child, 0)
        for fd in (ready, tell, end, go):
            os.close(fd)


@forks
def test_a_forked_child_does_not_release_its_parents_claim(table):
    claim = table.claim(DIGEST, b"/parent", now=0.0, until=60.0)
    child = os.fork()
    if child == 0:
        os._exit(int(table.release(claim)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert places.find(table, DIGEST, 1.0) is not None


def test_a_full_bucket_is_counted_and_no_error(table):
    same_bucket = [DIGEST[:8] + DIGEST[8:12] + bytes([turn]) * 20 for turn in range(17)]
    claims = [table.claim(digest, b"/a", now=0.0, until=9.0) for digest in same_bucket]
    assert all(claim.ours for claim in claims[:16])
    assert claims[16] is None
    assert table.full == 1
    assert table.claim(same_bucket[16], b"/a", now=9.0, until=20.0).ours, "the expired make room"


def test_a_wait_ends_with_the_claim_that_waited(table):
    other = bytes(31) + b"o"
    waiting = table.claim(DIGEST, b"/a", now=0.0, until=60.0)
    theirs = table.claim(other, b"/b", now=0.0, until=60.0)
    assert table.may_wait([waiting], other, now=1.0)
    assert not table.may_wait([theirs], DIGEST, now=1.0), "they would wait for each other"
    table.release(waiting)
    table.claim(DIGEST, b"/a", now=1.0, until=60.0)
    assert table.may_wait([theirs], DIGEST, now=1.0), "this is another call, that waits for nobody"


def test_noise_in_the_table_is_free_space(host, table):
    host.flights[:] = os.urandom(len(host.flights))
    assert list(places.claims(table)) == []
    claim = table.claim(DIGEST, b"/a", now=0.0, until=60.0)
    assert claim.ours
    assert places.find(table, DIGEST, 1.0).address == b"/a"


def test_a_changed_slot_is_not_believed(host, table):
    table.claim(DIGEST, b"/a", now=0.0, until=60.0)
    at = slot_at(bucket_of(DIGEST), 0)
    for offset in (0, 33, FIXED.size - 5):
        host.flights[at + offset] ^= 1
        assert places.find(table, DIGEST, 1.0) is None
        host.flights[at + offset] ^= 1
    assert places.find(table, DIGEST, 1.0) is not None


def test_a_slot_whose_tag_was_never_written_does_not_count(host, table):
    table.claim(DIGEST, b"/a", now=0.0, until=60.0)
    bucket = slot_at(bucket_of(DIGEST), 0) - TAGS.size
    host.flights[bucket : bucket + 8] = bytes(8)
    assert places.find(table, DIGEST, 1.0) is None
    assert table.claim(DIGEST, b"/b", now=1.0, until=60.0).ours


def test_an_address_that_does_not_fit_says_so(table):
    with pytest.raises(ValueError, match="at most 110"):
        table.claim(DIGEST, b"x" * (MAX_ADDRESS_BYTES + 1), now=0.0, until=1.0)


def test_a_stopped_lock_holder_costs_a_tenth_of_a_second_not_the_answer(host, table):
    with host.lock, pytest.raises(TierError):
        table.claim(DIGEST, b"/a", now=0.0, until=60.0)
