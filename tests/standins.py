"""What tests put in the place of time, of a tier and of a model."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import traceback
import warnings
from collections.abc import Callable

from thinkonce.entry import Entry, Form, Meta, localise
from thinkonce.errors import TierError
from thinkonce.freshness import Rules
from thinkonce.request.controls import Controls
from thinkonce.steps import Ask, Draft, Setting
from thinkonce.tiers.tier import Key

PATIENCE = 20.0  # seconds; only a broken test ever waits that long


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

    def lacks(self, key):
        return False

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
    fields += ("stale_if_error", "epoch", "hint")
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
    return Setting(tiers, Rules(**rules), clock, chance, lambda key: None, purged)


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


def forked(work: Callable[[], bool]) -> int:
    """The exit code of a child forked to do `work`: 0 if it said True."""
    with warnings.catch_warnings():
        # Python 3.12 warns of forks beside threads; those are what is tested here.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        signal.alarm(int(PATIENCE))  # a child that waits for ever must not hold up the tests
        code = 4
        try:
            code = 0 if work() else 3
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
