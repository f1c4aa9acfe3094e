"""What tests put in the place of time, of a tier and of a model."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from thinkonce.clock import Clock
from thinkonce.entry import Entry, Form, Meta, localise
from thinkonce.errors import TierError
from thinkonce.freshness import Rules
from thinkonce.request.controls import Controls
from thinkonce.steps import Ask, Draft, Setting
from thinkonce.tiers.tier import Key

PATIENCE = 20.0  # seconds; only a broken test ever waits that long


class FakeClock(Clock):
    """Stands still until it is moved; wall and monotonic time differ, as they do in life."""

    def __init__(self, now: float = 1_000_000.0):
        self._box = box = [now]
        super().__init__(wall=lambda: box[0], monotonic=lambda: box[0] - 999_000.0)

    __slots__ = ("_box",)

    def __setattr__(self, name, value):
        object.__setattr__(self, name, value)

    def move(self, seconds: float) -> None:
        self._box[0] += seconds

    @property
    def now(self) -> float:
        return self._box[0]


class DictTier:
    """A dict with the tier's manners; `broken` makes every touch fail."""

    def __init__(self, name, clock, *, broken=False, persistent=False):
        self.name, self.clock, self.broken, self.persistent = name, clock, broken, persistent
        self.kept: dict[bytes, Entry] = {}
        self.touched: list[str] = []

    def get(self, key):
        self._touch("reading")
        entry = self.kept.get(key.digest)
        if entry is None or entry.gone_at <= self.clock.wall():
            return None
        return copy_of(entry, self.clock)

    def put(self, key, entry):
        self._touch("writing")
        localise(entry, self.clock)
        self.kept[key.digest] = copy_of(entry, self.clock)

    def flush(self, timeout):
        return True

    def _touch(self, doing):
        self.touched.append(doing)
        if self.broken:
            raise TierError(self.name, doing)


def copy_of(entry, clock):
    """Another entry of the same answer, as a tier of another process would make."""
    fields = ("payload", "meta", "digest", "form", "thaw", "payload_size", "cost", "seconds")
    fields += ("created_at", "expires_at", "gone_at", "stale_while_revalidate")
    fields += ("stale_if_error", "epoch")
    twin = Entry(key=entry.key, **{name: getattr(entry, name) for name in fields})
    localise(twin, clock)
    return twin


def plain_draft(raw, seconds):
    return Draft(raw, Form.PLAIN, size=len(str(raw)), cost=seconds)


def make_ask(call: Callable, *, key="k", epoch=0, **controls) -> Ask:
    digest = key.encode().ljust(32, b".") if key is not None else None
    return Ask(
        key=None if key is None else Key(key, digest),
        meta=Meta(scope="test"),
        controls=Controls(**controls),
        call=call,
        draft=plain_draft,
        epoch=epoch,
    )


def make_setting(tiers, clock, *, chance=lambda: 0.0, purged=lambda entry: False, **rules):
    rules = {"ttl": 10.0, "jitter": 0.0, "early_refresh": 0.0} | rules
    return Setting(tiers=tiers, rules=Rules(**rules), clock=clock, chance=chance, purged=purged)


def in_threads(functions) -> list:
    """What each function gives, all run at once; raises the first failure."""
    results: list = [None] * len(functions)

    def run(place, function):
        try:
            results[place] = ("gave", function())
        except BaseException as error:
            results[place] = ("raised", error)

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(functions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert all(results), "some threads did not come back"
    for how, what in results:
        if how == "raised":
            raise what
    return [what for _, what in results]


async def settle(rounds: int = 5) -> None:
    """Let every other task go as far as it can without news from outside."""
    for _ in range(rounds):
        await asyncio.sleep(0)
