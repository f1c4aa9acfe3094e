"""The SQLite tier against a dict: whatever is put, purged, closed and reopened, in any order."""

import shutil
import tempfile
from dataclasses import dataclass
from math import inf
from operator import itemgetter
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from thinkonce.entry import Meta
from thinkonce.host.mapfile import HostFile, host_path
from thinkonce.selector import Selector
from thinkonce.testing.clock import FakeClock
from thinkonce.testing.entries import answer_of, entry_of, key_of
from thinkonce.tiers.sqlite import SqliteTier

NAMES = "abcdef"
names = st.sampled_from(NAMES)
values = st.one_of(st.none(), st.text(max_size=5), st.lists(st.integers(), max_size=3))
metas = st.builds(
    Meta,
    tenant=st.sampled_from(["", "t1"]),
    namespace=st.sampled_from(["", "v1"]),
    tags=st.lists(st.sampled_from(["x", "y"]), max_size=2).map(tuple),
)
selectors = st.builds(
    Selector,
    tags=st.lists(st.sampled_from(["x", "y", "z"]), max_size=2).map(tuple),
    namespace=st.none() | st.sampled_from(["", "v1"]),
    tenant=st.none() | st.sampled_from(["", "t1"]),
    key=st.just(b"") | names.map(lambda name: key_of(name).digest[:5]),
    older_than=st.none() | st.integers(0, 200).map(lambda age: 1_700_000_000.0 + age),
)


@dataclass
class Known:
    value: Any
    meta: Meta
    created: float
    expires: float
    gone: float
    epoch: int


class SqliteMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self):
        self.folder = Path(tempfile.mkdtemp(prefix="thinkonce-"))
        self.clock = FakeClock()
        self.model: dict[str, Known] = {}
        self.epochs = [0]
        self.open()

    def open(self):
        path = self.folder / "answers.db"
        self.host = HostFile(host_path(path))
        self.tier = SqliteTier(path, secret=b"s" * 32, host=self.host, clock=self.clock.clock)

    def close(self):
        self.tier.close()
        self.host.close()

    def teardown(self):
        if hasattr(self, "tier"):
            self.close()
            shutil.rmtree(self.folder)

    def alive(self, known):
        return known.gone > self.clock.wall()

    def matches(self, selector, name, known):
        return selector.matches(known.meta, key_of(name).digest, known.created, known.expires)

    @rule(name=names, value=values, meta=metas, ttl=st.sampled_from([inf, 20.0, 90.0]))
    def put(self, name, value, meta, ttl):
        epoch = self.tier.purges.epoch[0]
        entry = entry_of(self.clock, value, ttl=ttl, retention=5.0, meta=meta, epoch=epoch)
        self.tier.put(key_of(name), entry)
        self.model[name] = Known(
            value, meta, entry.created_at, entry.expires_at, entry.gone_at, epoch
        )

    @rule(name=names, selector=selectors, meta=metas)
    def put_what_was_asked_before_a_purge(self, name, selector, meta):
        entry = entry_of(self.clock, "late", meta=meta, epoch=self.tier.purges.epoch[0])
        entry.digest = key_of(name).digest
        self.purge(selector)
        self.tier.put(key_of(name), entry)
        if not selector.matches_entry(entry):
            self.model[name] = Known(
                "late", meta, entry.created_at, entry.expires_at, entry.gone_at, entry.epoch
            )

    @rule(selector=selectors)
    def purge(self, selector):
        doomed = {n for n, known in self.model.items() if self.matches(selector, n, known)}
        there = {n for n in doomed if self.alive(self.model[n])}
        purge, removed = self.tier.purges.append(selector)
        removed += self.tier.purge(purge)
        assert len(there) <= removed <= len(doomed), "entries that are gone may still lie there"
        for name in doomed:
            del self.model[name]

    @rule(name=names)
    def delete(self, name):
        known = self.model.pop(name, None)
        deleted = self.tier.delete(key_of(name))
        if known is None or self.alive(known):
            assert deleted == (known is not None)

    @rule(seconds=st.sampled_from([0.0, 5.0, 30.0, 100.0]))
    def wait(self, seconds):
        self.clock.advance(seconds)

    @rule()
    def flush(self):
        assert self.tier.flush(10)

    @rule()
    def tidy(self):
        assert self.tier.flush(10)
        self.tier.tidy()
        self.model = {name: known for name, known in self.model.items() if self.alive(known)}
        assert self.tier.stats().entries == len(self.model)

    @rule()
    def reopen(self):
        self.close()
        self.open()

    @rule(selector=selectors, limit=st.integers(1, 4))
    def list_some(self, selector, limit):
        wanted = [
            (key_of(name).digest, known.value)
            for name, known in self.model.items()
            if self.alive(known) and self.matches(selector, name, known)
        ]
        wanted.sort(key=itemgetter(0))
        listed = [(e.digest, answer_of(e)) for e in self.tier.entries(selector, limit)]
        assert listed == wanted[:limit]

    @invariant()
    def a_get_gives_what_the_dict_holds(self):
        for name in NAMES:
            known = self.model.get(name)
            found = self.tier.get(key_of(name))
            if known is None or not self.alive(known):
                assert found is None
            else:
                assert answer_of(found) == known.value
                assert found.meta == known.meta
                assert found.gone_at == known.gone

    @invariant()
    def nothing_is_corrupt_or_dropped(self):
        stats = self.tier.stats()
        assert stats.errors == stats.dropped_writes == 0


TestSqliteMachine = SqliteMachine.TestCase
TestSqliteMachine.settings = settings(max_examples=25, stateful_step_count=25)
