"""What a user holds: tiers, rules and counters behind a few verbs."""

from __future__ import annotations

import logging
import random
import threading
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import replace
from math import inf
from types import TracebackType
from typing import Any, Self, TypedDict, TypeVar

import msgspec

from thinkonce.backing import open_backing
from thinkonce.caller import Caller, Options
from thinkonce.clock import SYSTEM, Clock
from thinkonce.drive import AsyncWorld, BlockingWorld, drive, drive_async
from thinkonce.entry import PRIORITY_WEIGHT, Entry, Meta
from thinkonce.errors import ConfigError, NotCached
from thinkonce.flow import Answer, Ask, Draft, Setting, answer, lead
from thinkonce.freshness import Rules, Verdict, judge
from thinkonce.functions import describe
from thinkonce.outcome import Outcome, Reason
from thinkonce.request.canonical import canonical_args
from thinkonce.request.controls import Controls
from thinkonce.request.key import Keyer
from thinkonce.selector import Selector
from thinkonce.tally import Tally
from thinkonce.tiers.memory import MemoryTier
from thinkonce.tiers.tier import Key
from thinkonce.units import parse_bytes, parse_seconds
from thinkonce.values import keep, persistable

__all__ = ("Cache", "CacheStats", "Explanation")

log = logging.getLogger("thinkonce")
T = TypeVar("T")
Ttl = float | str | None
Size = int | str | None
VALUE_SCOPE = "value"  # of entries made with `Cache.set`
FLUSH_SECONDS = 5.0


class CacheStats(TypedDict):
    """Counts since the start; `total_items`, `bytes` and `by_priority` are of the memory tier.

    `hit_rate` and `cache_hit_rate` are one number, a share between 0 and 1; `default_ttl` is in
    seconds, None for no expiry; `saved_seconds` is model time that hits did not take.
    """

    hits: int
    misses: int
    stale: int
    coalesced: int
    refreshed: int
    bypassed: int
    hit_rate: float
    cache_hit_rate: float
    total_items: int
    max_size: int | None
    max_bytes: int | None
    bytes: int
    default_ttl: float | None
    evictions: dict[str, int]
    by_priority: dict[str, int]
    saved_seconds: float
    tier_errors: dict[str, int]
    dropped_writes: int


class Explanation(msgspec.Struct, frozen=True):
    """What a call would get now, and why. `key` is the shared key in hex, "" if there is none.

    `age` and `life_left` are in seconds (None without an entry; inf: never expires).
    """

    outcome: Outcome
    reason: Reason | None
    key: str
    tier: str | None = None
    age: float | None = None
    life_left: float | None = None


class Cache:
    """A cache of answers. Thread-safe, usable from threads and event loops at once.

    `store` is a URL (`sqlite:///answers.db`); None or `memory://` keeps answers in this process
    only. `ttl` is seconds, `5m`, a class such as `hot`, or None for no expiry. `max_size`
    (entries) and `max_bytes` bound the memory tier, `store_max_bytes` the store. `inline` lets
    generated wrappers answer memory hits by themselves. Raises ConfigError.
    """

    def __init__(
        self,
        store: str | None = None,
        *,
        ttl: Ttl = None,
        max_size: int | None = None,
        max_bytes: Size = "256MiB",
        store_max_bytes: Size = "1GiB",
        policy: str = "cost",
        stale_while_revalidate: float | str = 0,
        stale_if_error: float | str = 0,
        jitter: float = 0.1,
        early_refresh: float = 1.0,
        inline: bool = True,
        secret: str = "",
        clock: Clock = SYSTEM,
        chance: Callable[[], float] = random.random,
    ) -> None:
        rules = _rules(ttl, stale_while_revalidate, stale_if_error, jitter, early_refresh)
        backing = open_backing(
            store,
            secret=secret,
            clock=clock,
            max_bytes=parse_bytes(store_max_bytes, "store_max_bytes"),
            lease=rules.lease,
        )
        self._backing = backing
        self.keyer = Keyer(backing.secret)
        self.store = backing.tier
        self.memory = MemoryTier(
            max_entries=max_size,
            max_bytes=None if max_bytes is None else parse_bytes(max_bytes, "max_bytes"),
            policy=policy,
            clock=clock,
            purges=backing.purges,
        )
        self.inline = inline
        self.tally = Tally()
        self.lock = threading.RLock()
        self.setting = Setting(
            tiers=[self.memory] if self.store is None else [self.memory, self.store],
            rules=rules,
            clock=clock,
            chance=chance,
            why_gone=self.memory.why_gone,
        )
        self.flights = backing.flights
        self._blocking = BlockingWorld(self.setting, self.flights, self._tier_failed)
        self._async = AsyncWorld(self.setting, self.flights, self._tier_failed)
        self._callers: list[weakref.ref[Caller]] = []
        self._plain_callers: dict[object, Caller] = {}

    # -- requests of one's own -----------------------------------------------------------

    def get(self, request: object, /, default: Any = None, *, namespace: str = "") -> Any:
        """The stored answer to `request` (any value with a canonical form), else `default`.

        Raises TypeError if `request` has no canonical form.
        """
        ask = self._value_ask(request, Controls(only_if_cached=True, namespace=namespace))
        try:
            return self._told(self.answer(ask))
        except NotCached:
            self.tally.misses += 1
            return default

    def set(
        self,
        request: object,
        value: Any,
        *,
        ttl: Ttl = None,
        tags: tuple[str, ...] | list[str] = (),
        namespace: str = "",
        priority: str = "",
    ) -> None:
        """Store `value` as the answer to `request`. `ttl` None means the cache's own."""
        ask = self._value_ask(request, self.controls(ttl, tags, namespace, priority))
        ask.call = lambda: value
        self.keep(ask)

    def delete(self, request: object, /, *, namespace: str = "") -> bool:
        """Remove the answer to `request`; False if there was none."""
        key = self._value_key(request, namespace)
        return self.discard(key)

    def get_or_call(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """What `fn(*args, **kwargs)` gives, from the cache where it is known.

        Shares entries with `@cached(cache=self)` on the same function.
        """
        caller = self._plain_caller(fn)
        return caller.call(caller.bind(*args, **kwargs))  # type: ignore[no-any-return]

    async def aget_or_call(
        self, fn: Callable[..., Awaitable[T]], /, *args: Any, **kwargs: Any
    ) -> T:
        """The same for a coroutine function."""
        caller = self._plain_caller(fn)
        return await caller.call_async(caller.bind(*args, **kwargs))  # type: ignore[no-any-return]

    # -- upkeep --------------------------------------------------------------------------

    def purge(
        self,
        *,
        tags: tuple[str, ...] | list[str] | str = (),
        namespace: str | None = None,
        model: str | None = None,
        older_than: float | str | None = None,
        key: str | None = None,
        expired: bool = False,
        all: bool = False,
    ) -> int:
        """Remove entries that match everything given, in every process of the host at once.

        `older_than` is an age (seconds or `1h`); `key` a key in hex or a prefix of 8 digits or
        more. Returns how many were removed. Raises ValueError when nothing is given.
        """
        now = self.setting.clock.wall()
        selector = Selector(
            tags=(tags,) if isinstance(tags, str) else tuple(tags),
            namespace=namespace,
            model=model,
            key=b"" if key is None else parse_key(key),
            older_than=None if older_than is None else now - parse_seconds(older_than),
            expired_before=now if expired else None,
        )
        if selector == Selector() and not all:
            raise ValueError("purge() was told nothing to remove; all=True removes everything")
        return self.purge_selected(selector)

    def purge_selected(self, selector: Selector) -> int:
        """`purge` for a ready selector. An entry in two tiers counts once."""
        purge, stored = self.memory.purges.append(selector)
        held = self.memory.purge(purge)
        self.memory.catch_up()
        return max(held, stored)

    def stats(self) -> CacheStats:
        """Counts of everything asked through this cache, decorated functions included."""
        total = Tally()
        total.add(self.tally)
        for caller in self._living():
            total.add(caller.tally)
        return self.stats_of(total)

    def resize(self, *, max_size: int | None = None, max_bytes: Size = None) -> None:
        """Change the memory tier's bounds while running; what is not given stays."""
        limits = self.memory.limits
        entries = limits.max_entries if max_size is None else max_size
        size = limits.max_bytes if max_bytes is None else parse_bytes(max_bytes, "max_bytes")
        self.memory.resize(entries, size)

    def flush(self, timeout: float = FLUSH_SECONDS) -> bool:
        """Wait until what was stored is durable; False if `timeout` seconds passed first."""
        return sum(not tier.flush(timeout) for tier in self.setting.tiers) == 0

    def close(self) -> None:
        """Flush and close the store. Idempotent. The memory tier stays readable."""
        self._blocking.wait_for_renewals(FLUSH_SECONDS)
        self._backing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- for the decorator and the adapters ----------------------------------------------

    @property
    def epoch(self) -> int:
        """The purge epoch now; what a request begins under."""
        return int(self.memory.purges.epoch[0])

    @property
    def shared(self) -> bool:
        """Whether other processes may purge: then a probe compares epochs."""
        return self.store is not None

    def answer(self, ask: Ask) -> Answer:
        return drive(answer(ask, self.setting), self._blocking)

    async def answer_async(self, ask: Ask) -> Answer:
        return await drive_async(answer(ask, self.setting), self._async)

    def keep(self, ask: Ask) -> None:
        """Store what `ask.call` gives, without asking whether it is there."""
        drive(lead(ask, self.setting), self._blocking)

    def discard(self, key: Key) -> bool:
        """Remove what `key` holds from every tier; False if none held anything."""
        return sum(tier.delete(key) for tier in self.setting.tiers) > 0

    def examine(self, ask: Ask) -> Explanation:
        """What `ask` would get now. Counts nothing and calls nothing."""
        assert ask.key is not None
        key, clock = ask.key, self.setting.clock
        for tier in self.setting.tiers:
            entry = tier.get(key)
            if entry is None:
                continue
            now = (clock.wall(), clock.monotonic())
            verdict, why = judge(entry, ask.controls, self.setting.rules, now, 1.0)
            outcome = _PROMISES.get(verdict, Outcome.MISS)
            left = entry.expires_at - now[0]
            return Explanation(
                outcome, why, key.digest.hex(), tier.name, now[0] - entry.created_at, left
            )
        reason = self.memory.why_gone(key) or Reason.NEW
        return Explanation(Outcome.MISS, reason, key.digest.hex())

    def probe(self, local: object) -> Entry | None:
        """A memory hit that the flow has decided already; None sends the caller to the flow."""
        if not self.inline:
            return None
        entry = self.memory.map.get(local)
        if (
            entry is None
            or self.setting.clock.monotonic() >= entry.inline_until
            or log.isEnabledFor(logging.INFO)
            or (self.shared and self.memory.purges.epoch[0] != self.memory.applied)
        ):
            return None
        self.memory.note(entry)
        return entry

    def controls(
        self, ttl: Ttl, tags: tuple[str, ...] | list[str], namespace: str, priority: str
    ) -> Controls:
        """Checked controls for entries made from Python. Raises ConfigError."""
        seconds, implied = (None, None) if ttl is None else self.setting.rules.parse_ttl(ttl)
        chosen = priority or implied or ""
        if chosen not in ("", *PRIORITY_WEIGHT):
            raise ConfigError("priority", priority, " | ".join(PRIORITY_WEIGHT))
        return Controls(ttl=seconds, tags=tuple(tags), namespace=namespace, priority=chosen)

    def register(self, caller: Caller) -> None:
        """Count `caller` in `stats()` for as long as it lives."""
        self._callers.append(weakref.ref(caller))

    def stats_of(self, tally: Tally) -> CacheStats:
        held, limits = self.memory.stats(), self.memory.limits
        ttl = self.setting.rules.ttl
        return CacheStats(
            hits=tally.hits,
            misses=tally.misses,
            stale=tally.stale,
            coalesced=tally.coalesced,
            refreshed=tally.refreshed,
            bypassed=tally.bypassed,
            hit_rate=tally.hit_rate,
            cache_hit_rate=tally.hit_rate,
            total_items=held.entries,
            max_size=limits.max_entries,
            max_bytes=limits.max_bytes,
            bytes=held.bytes,
            default_ttl=None if ttl == inf else ttl,
            evictions=held.evictions,
            by_priority=self.memory.by_priority(),
            saved_seconds=tally.saved_seconds,
            tier_errors=self.tally.tier_errors | tally.tier_errors,
            dropped_writes=0 if self.store is None else self.store.stats().dropped_writes,
        )

    def log(self, answer: Answer, scope: str) -> None:
        """One line an outcome, at INFO. Never the question or the answer."""
        if not log.isEnabledFor(logging.INFO):
            return
        left = inf if answer.entry is None else answer.entry.expires_at
        log.info(
            "%s %s reason=%s tier=%s life_left=%.0fs",
            answer.outcome.value,
            scope,
            answer.reason.value if answer.reason is not None else "-",
            answer.tier or "-",
            left - self.setting.clock.wall(),
        )

    # -- inside --------------------------------------------------------------------------

    def _value_key(self, request: object, namespace: str) -> Key:
        raw = canonical_args(("request",), (request,))
        return self.keyer.call_key(VALUE_SCOPE, "", namespace, raw)

    def _value_ask(self, request: object, controls: Controls) -> Ask:
        return Ask(
            key=self._value_key(request, controls.namespace),
            meta=Meta(
                scope=VALUE_SCOPE,
                namespace=controls.namespace,
                tags=controls.tags,
                priority=controls.priority or "medium",
            ),
            controls=controls,
            call=_never,
            draft=self._draft_value,
            epoch=self.epoch,
        )

    def _draft_value(self, value: Any, seconds: float) -> Draft:
        kept = keep(value)
        if self.store is not None:
            persistable(kept)
        return Draft(kept.payload, kept.form, kept.thaw, kept.size, seconds)

    def _told(self, answer: Answer) -> Any:
        self.tally.count(answer)
        self.log(answer, VALUE_SCOPE)
        return answer.value

    def _plain_caller(self, fn: Callable[..., Any]) -> Caller:
        # Bound methods are made anew at each access; their function and object are not.
        place = (getattr(fn, "__func__", fn), id(getattr(fn, "__self__", None)))
        caller = self._plain_callers.get(place)
        if caller is None:
            caller = Caller(self, describe(fn), Options())
            self._plain_callers[place] = caller
            self.register(caller)
        return caller

    def _living(self) -> list[Caller]:
        living = [caller for ref in self._callers if (caller := ref()) is not None]
        self._callers = [weakref.ref(caller) for caller in living]
        return living

    def _tier_failed(self, tier: str, error: Exception) -> None:
        self.tally.tier_failed(tier)
        log.warning("tier %s failed: %s", tier, error)


_PROMISES = {
    Verdict.FRESH: Outcome.HIT,
    Verdict.EARLY: Outcome.HIT,
    Verdict.STALE: Outcome.STALE,
}


def parse_key(text: str) -> bytes:
    """A key, or a prefix of at least 8 hex digits, as bytes. Raises ValueError."""
    digits = text.strip().lower()
    if not 8 <= len(digits) <= 64 or len(digits) % 2 or set(digits) - set("0123456789abcdef"):
        raise ValueError(f"key={text!r} is not usable; it accepts 8 to 64 hex digits, evenly many")
    return bytes.fromhex(digits)


def _never() -> Any:
    raise AssertionError("only-if-cached never calls")


def _rules(
    ttl: Ttl, swr: float | str, sie: float | str, jitter: float, early_refresh: float
) -> Rules:
    while_revalidate = parse_seconds(swr, "stale_while_revalidate")
    if_error = parse_seconds(sie, "stale_if_error")
    rules = Rules(
        jitter=jitter,
        stale_while_revalidate=while_revalidate,
        stale_if_error=if_error,
        early_refresh=early_refresh,
    )
    return replace(rules, ttl=rules.parse_ttl(ttl)[0])
