"""The flight table against a dict, with owners that live, died, and outlive their leases."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import places
from thinkonce.host import flights as module
from thinkonce.host.flights import BUCKETS, WAYS, FlightTable, bucket_of
from thinkonce.host.mapfile import HostFile
from thinkonce.host.process import Process, is_alive, state_of, this_process

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="names a dead process by forking")

# More digests than one bucket holds, all in two buckets, some with equal tags.
DIGESTS = [
    (b"equal tag" + bytes([turn]) if turn % 5 == 0 else bytes([turn, 1]) * 5)[:8]
    + (bucket + BUCKETS * turn).to_bytes(4, "little")
    + bytes([turn]) * 20
    for bucket in (3, 4)
    for turn in range(WAYS + 3)
]
NOW, LATER, DEAD, OTHER = "ours", "later", "dead", "other"


def dead_process():
    """The name of a process that has really ended."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(reads, 1)
        os._exit(0)
    name = named(child)
    os.write(writes, b"x")
    os.waitpid(child, 0)
    os.close(reads)
    os.close(writes)
    assert not is_alive(name)
    return name


def named(pid):
    me = this_process()
    return Process(pid, me.boot, me.space, state_of(pid)[1])


class FlightTableMachine(RuleBasedStateMachine):
    @initialize()
    def open(self):
        self.folder = tempfile.TemporaryDirectory()
        self.host = HostFile(Path(self.folder.name) / "a.host")
        self.table = FlightTable(self.host)
        self.owners = {NOW: this_process(), OTHER: named(os.getppid()), DEAD: dead_process()}
        self.model = {}  # digest -> (claim, owner, until)
        self.gone = []  # claims that no longer hold
        self.waits = {}  # digest -> digest
        self.now = 100.0
        self.full = 0

    def teardown(self):
        if hasattr(self, "host"):
            self.host.close()
            self.folder.cleanup()

    def as_owner(self, who, act):
        real, module.this_process = module.this_process, lambda: self.owners[who]
        try:
            return act()
        finally:
            module.this_process = real

    def is_live(self, digest):
        _, who, until = self.model[digest]
        return who != DEAD and self.now < until

    def forget(self, digest):
        self.gone.append(self.model.pop(digest)[0])
        self.waits.pop(digest, None)

    @rule(
        digests=st.lists(st.sampled_from(DIGESTS), min_size=1, max_size=20),
        who=st.sampled_from([NOW, OTHER, DEAD]),
        lease=st.sampled_from([1.0, 5.0, 50.0]),
    )
    def claim(self, digests, who, lease):
        for digest in digests:
            self.claim_one(digest, who, self.now + lease)

    def claim_one(self, digest, who, until):
        address = b"/at/" + digest
        got = self.as_owner(who, lambda: self.table.claim(digest, address, self.now, until))
        if digest in self.model and self.is_live(digest):
            held, _, _ = self.model[digest]
            assert (got.ours, got.sequence) == (False, held.sequence)
            assert got.address == address
            return
        bucket = [d for d in self.model if bucket_of(d) == bucket_of(digest)]
        stale = [d for d in bucket if not self.is_live(d)]
        if digest not in bucket and len(bucket) == WAYS and not stale:
            assert got is None, "a full bucket is no error"
            self.full += 1
            return
        assert got.ours
        if digest in bucket:
            self.forget(digest)
        elif len(bucket) == WAYS:
            left = {claim.digest for claim in places.claims(self.table)}
            (evicted,) = [d for d in bucket if d not in left]
            assert evicted in stale, "only the dead and the expired make room"
            self.forget(evicted)
        self.model[digest] = (got, who, until)

    @rule(digest=st.sampled_from(DIGESTS), who=st.sampled_from([NOW, OTHER, DEAD]))
    def release(self, digest, who):
        if digest in self.model:
            held, owner, _ = self.model[digest]
            freed = self.as_owner(who, lambda: self.table.release(held))
            assert freed == (who == owner), "only its owner gives a place back"
            if freed:
                self.forget(digest)

    @rule(digest=st.sampled_from(DIGESTS), lease=st.sampled_from([1.0, 50.0]))
    def renew(self, digest, lease):
        if digest in self.model:
            held, owner, _ = self.model[digest]
            assert self.as_owner(owner, lambda: self.table.renew(held, self.now + lease))
            self.model[digest] = (held, owner, self.now + lease)

    @rule(digest=st.sampled_from(DIGESTS))
    def depose(self, digest):
        if digest in self.model:
            assert self.table.depose(self.model[digest][0])
            self.forget(digest)

    @rule(pick=st.randoms(use_true_random=False))
    def what_is_gone_cannot_be_used(self, pick):
        if self.gone:
            claim = pick.choice(self.gone)
            act = pick.choice([self.table.release, lambda c: self.table.renew(c, self.now + 9)])
            assert not self.as_owner(NOW, lambda: act(claim))
            assert not self.table.depose(claim)

    @rule(digest=st.sampled_from(DIGESTS))
    def find(self, digest):
        found = places.find(self.table, digest, self.now)
        if digest in self.model and self.is_live(digest):
            assert found.sequence == self.model[digest][0].sequence
        else:
            assert found is None

    @rule(
        ours=st.lists(st.sampled_from(DIGESTS[:6]), max_size=2, unique=True),
        digest=st.sampled_from(DIGESTS[:6]),
    )
    def wait(self, ours, digest):
        held = [d for d in ours if d in self.model]
        claims = [self.model[d][0] for d in held]
        ahead, seen, circle = digest, set(), False
        while ahead not in seen:
            if ahead in held:
                circle = True
                break
            seen.add(ahead)
            if ahead not in self.model or not self.is_live(ahead) or ahead not in self.waits:
                break
            ahead = self.waits[ahead]
        assert self.table.may_wait(claims, digest, self.now) is not circle
        if not circle:
            self.waits.update(dict.fromkeys(held, digest))

    @rule(digest=st.sampled_from(DIGESTS[:6]))
    def stop_waiting(self, digest):
        if digest in self.model:
            self.table.stop_waiting([self.model[digest][0]])
            self.waits.pop(digest, None)

    @rule(seconds=st.sampled_from([0.5, 1.0, 10.0]))
    def time_passes(self, seconds):
        self.now += seconds

    @invariant()
    def table_and_dict_agree(self):
        if not hasattr(self, "model"):
            return
        written = {claim.digest: claim for claim in places.claims(self.table)}
        assert written.keys() == self.model.keys()
        for digest, (held, who, until) in self.model.items():
            claim = written[digest]
            assert (claim.owner, claim.until) == (self.owners[who], until)
            assert claim.sequence == held.sequence
        assert len({claim.sequence for claim in written.values()}) == len(written)
        assert self.table.full == self.full


TestFlightTable = FlightTableMachine.TestCase
TestFlightTable.settings = settings(max_examples=40, stateful_step_count=60, deadline=None)
