"""The life of one request: key -> tiers -> one call for many askers -> model -> record.

`answer` is the whole policy, written once. It performs no I/O: it yields the step it wants done
and receives that step's result, so that blocking code, asyncio code and the gateway share it and
differ only in who carries the steps out (`drive.py`).

    answer ──► look ──► fresh? ──────────────────────────────► HIT
                  │ early / stale-while-revalidate ──► Renew ─► HIT / STALE
                  ▼
                Join ──► follow another's call ───────────────► COALESCED
                  │ lead
                  ▼
                lead ──► CallModel ──► draft ──► Keep ────────► MISS / REFRESH
                             │ failed, a stale entry may answer ► STALE
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, NoReturn, TypeVar

from thinkonce.clock import Clock
from thinkonce.entry import Entry, Form, Meta
from thinkonce.errors import NotCached
from thinkonce.freshness import Rules, Verdict, inline_until, judge, life_of
from thinkonce.outcome import Match, Outcome, Reason
from thinkonce.request.controls import Controls
from thinkonce.singleflight import Fate, Landing, Role, Seat
from thinkonce.tiers.tier import Key, Tier

__all__ = (
    "Answer",
    "Ask",
    "CallModel",
    "Draft",
    "Flow",
    "Follow",
    "Join",
    "Keep",
    "Lead",
    "Live",
    "Look",
    "Made",
    "Renew",
    "Setting",
    "Step",
    "answer",
    "lead",
)

# -- what goes in and what comes out -------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Draft:
    """An answer made ready to be kept. `refused` says why it must not be stored."""

    payload: Any
    form: int = Form.PLAIN
    thaw: Callable[[Any], Any] | None = None
    size: int = 0
    cost: float = 0.0
    tokens: int = 0
    refused: Reason | None = None
    meta: Meta | None = None  # where the answer tells more than the request did


@dataclass(slots=True)
class Ask:
    """One request as the flow sees it.

    `key` is None when the cache must not be used; `bypass` then says why. `draft` turns what
    the model returned into something that can be kept; it gets the seconds the model took.
    `epoch` is the purge epoch now: what a purge removes later, this request cannot bring back.
    """

    key: Key | None
    meta: Meta
    controls: Controls
    call: Callable[[], Any]
    draft: Callable[[Any, float], Draft]
    epoch: int = 0
    bypass: Reason | None = None
    coalesce: bool = True
    thaw: Callable[[Any], Any] | None = None  # in place of an entry's own
    started: float | None = None  # monotonic; when the model's work began, if before CallModel
    trouble: bool = False  # a tier failed while this request was served


@dataclass(slots=True)
class Made:
    """What the model gave, and the entry made of it. `stored` is false where `refused` is set."""

    raw: Any
    entry: Entry
    refused: Reason | None

    @property
    def stored(self) -> bool:
        return self.refused is None


@dataclass(frozen=True, slots=True)
class Live:
    """An answer still arriving: a driver may land a call with it so that the caller can follow.

    `feed` is whatever the driver's callers know how to read; the flow does not look inside.
    """

    feed: Any


@dataclass(slots=True)
class Answer:
    """What the caller gets. `raw` is set for the caller whose own call made the answer, and is
    a `Live` while the answer is still arriving."""

    outcome: Outcome
    reason: Reason | None = None
    entry: Entry | None = None
    raw: Any = None
    tier: str | None = None
    match: Match | None = None
    refused: Reason | None = None
    similarity: float | None = None

    @property
    def value(self) -> Any:
        """The answer in the caller's own copy."""
        if self.entry is None or (self.tier is None and self.outcome is not Outcome.COALESCED):
            return self.raw
        thaw = self.entry.thaw
        return self.entry.payload if thaw is None else thaw(self.entry.payload)


@dataclass(frozen=True, slots=True)
class Setting:
    """What all requests of one cache share: tiers nearest first, rules, clock, chance."""

    tiers: Sequence[Tier]
    rules: Rules
    clock: Clock
    chance: Callable[[], float]  # uniform [0, 1)
    why_gone: Callable[[Key], Reason | None] = field(default=lambda key: None)


# -- steps: what the flow may ask for ------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Look:
    """Gives the Entry under `ask.key` in `tier`, or None; a failing tier gives None."""

    tier: Tier
    ask: Ask


@dataclass(frozen=True, slots=True)
class Keep:
    tier: Tier
    ask: Ask
    entry: Entry


@dataclass(frozen=True, slots=True)
class CallModel:
    """Gives what `ask.call` returns; its failure is thrown into the flow."""

    ask: Ask


@dataclass(frozen=True, slots=True)
class Join:
    """Gives a Seat in the call under way for `ask.key`, or in a new one."""

    ask: Ask


@dataclass(frozen=True, slots=True)
class Lead:
    """Gives the Landing of `lead(ask)`, carried out for everybody who follows `seat`."""

    ask: Ask
    seat: Seat


@dataclass(frozen=True, slots=True)
class Follow:
    """Gives the Landing of somebody else's call; waits at most the lease."""

    ask: Ask
    seat: Seat


@dataclass(frozen=True, slots=True)
class Renew:
    """Carry out `lead(ask)` in the background, unless somebody already does. Gives nothing."""

    ask: Ask


Step = Look | Keep | CallModel | Join | Lead | Follow | Renew
T = TypeVar("T")
Flow = Generator[Step, Any, T]


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """The best entry the tiers hold: what it is good for, and why it is not better."""

    entry: T
    tier: str
    verdict: Verdict
    reason: Reason | None


# -- the flow ------------------------------------------------------------------------------


def answer(ask: Ask, setting: Setting) -> Flow[Answer]:
    """Answer `ask` from the nearest tier that may, else from one call of the model.

    Raises NotCached under only-if-cached, and whatever the model raised where nothing stale
    may stand in.
    """
    if ask.key is None:
        raw = yield CallModel(ask)
        return Answer(Outcome.BYPASS, ask.bypass, raw=raw, refused=ask.bypass)

    found, reason = yield from _look_unless_refreshing(ask, ask.key, setting)
    if found is not None and found.verdict in _SERVABLE:
        if found.verdict is not Verdict.FRESH:
            yield Renew(ask)
        outcome = Outcome.STALE if found.verdict is Verdict.STALE else Outcome.HIT
        return _from_cache(found, outcome)
    if ask.controls.only_if_cached:
        raise NotCached(reason.value)
    try:
        return (yield from _ask_the_model(ask, ask.key, setting, reason))
    except Exception:
        if found is None or found.verdict is not Verdict.LAST_RESORT:
            raise
        if found.reason is Reason.TOO_OLD and not _allows_stale_on_error(ask, setting):
            raise
        return _from_cache(found, Outcome.STALE)


_SERVABLE = (Verdict.FRESH, Verdict.EARLY, Verdict.STALE)


def _look_unless_refreshing(
    ask: Ask, key: Key, setting: Setting
) -> Flow[tuple[Found[Entry] | None, Reason]]:
    if ask.controls.refresh or not ask.controls.read:
        return None, Reason.REFRESHED
    found = yield from _look(ask, setting)
    if found is not None and found.reason is not None:
        return found, found.reason
    if ask.trouble:
        return found, Reason.TIER_ERROR
    return found, setting.why_gone(key) or Reason.NEW


def _look(ask: Ask, setting: Setting) -> Flow[Found[Entry] | None]:
    """The first servable entry, nearest tier first, copied into nearer ones; else the best."""
    best: Found[Entry] | None = None
    for depth, tier in enumerate(setting.tiers):
        entry: Entry | None = yield Look(tier, ask)
        if entry is None:
            continue
        if ask.thaw is not None:
            entry.thaw = ask.thaw
        now = (setting.clock.wall(), setting.clock.monotonic())
        verdict, why = judge(entry, ask.controls, setting.rules, now, 1 - setting.chance())
        if verdict in _SERVABLE:
            for nearer in setting.tiers[:depth]:
                yield from _keep(ask, entry, nearer, setting)
            return Found(entry, tier.name, verdict, why)
        if best is None or best.verdict is Verdict.USELESS:
            best = Found(entry, tier.name, verdict, why)
    return best


def _keep(ask: Ask, entry: Entry, tier: Tier, setting: Setting) -> Flow[None]:
    yield Keep(tier, ask, entry)
    entry.inline_until = inline_until(entry, setting.rules)


def _ask_the_model(ask: Ask, key: Key, setting: Setting, reason: Reason) -> Flow[Answer]:
    outcome = Outcome.REFRESH if reason is Reason.REFRESHED else Outcome.MISS
    seat: Seat | None = (yield Join(ask)) if ask.coalesce else None
    role = Role.THROUGH if seat is None else seat.role
    while seat is not None and role is not Role.THROUGH:
        led = role is Role.LEAD
        landing: Landing = yield (Lead(ask, seat) if led else Follow(ask, seat))
        if landing.fate is Fate.COALESCED:
            return _settle(landing.value, led, outcome, reason)
        if landing.fate is Fate.FAILED:
            raise _failure(landing, led)
        # The leader went away: this caller leads now, or nobody can be waited for.
        role = Role.LEAD if landing.fate is Fate.LEAD else Role.THROUGH
    made = yield from lead(ask, setting)
    return _from_model(made, outcome, reason)


def _settle(value: object, led: bool, outcome: Outcome, reason: Reason) -> Answer:
    match value:
        case Made() if led:
            return _from_model(value, outcome, reason)
        case Made():
            return Answer(Outcome.COALESCED, reason, value.entry, refused=value.refused)
        case Answer():  # the leader looked again and found it stored
            return replace(value)
        case Live():
            return Answer(outcome if led else Outcome.COALESCED, reason, raw=value)
        case BaseException():
            raise value
        case _:
            raise TypeError(f"a call cannot end with {value!r}")


def _failure(landing: Landing, led: bool) -> BaseException:
    """The model's error: the leader's own, a copy for a follower where it can be copied."""
    if not led:
        landing.unwrap()
    assert landing.error is not None
    return landing.error


def lead(ask: Ask, setting: Setting, *, look_again: bool = False) -> Flow[Made | Answer | Live]:
    """Call the model and keep what it gave. Whoever leads runs this for all who follow.

    A `Live` answer is handed on at once; whoever sees its end runs `lead` again to keep it.

    `look_again`: the answer may have been stored between this caller's look and its becoming
    the leader; without a second look two calls would be made.
    """
    if look_again and not ask.controls.refresh and ask.controls.read:
        found = yield from _look(ask, setting)
        if found is not None and found.verdict is Verdict.FRESH:
            return _from_cache(found, Outcome.HIT)
    started = setting.clock.monotonic() if ask.started is None else ask.started
    raw = yield CallModel(ask)
    if isinstance(raw, Live):
        return raw
    seconds = setting.clock.monotonic() - started
    entry = _entry_of(ask, draft := ask.draft(raw, seconds), setting, seconds)
    refused = draft.refused or _refusal(ask, entry)
    if refused is None:
        for tier in setting.tiers:
            yield from _keep(ask, entry, tier, setting)
    return Made(raw, entry, refused)


def _entry_of(ask: Ask, draft: Draft, setting: Setting, seconds: float) -> Entry:
    now = setting.clock.wall()
    life = life_of(ask.controls, setting.rules, now, setting.chance)
    return Entry(
        key=None,
        payload=draft.payload,
        meta=draft.meta or ask.meta,
        digest=ask.key.digest if ask.key is not None else b"",
        form=draft.form,
        thaw=draft.thaw,
        payload_size=draft.size,
        cost=draft.cost,
        seconds=seconds,
        tokens=draft.tokens,
        created_at=now,
        expires_at=life.expires_at,
        gone_at=life.gone_at,
        stale_while_revalidate=life.stale_while_revalidate,
        stale_if_error=life.stale_if_error,
        epoch=ask.epoch,
    )


def _refusal(ask: Ask, entry: Entry) -> Reason | None:
    if not ask.controls.store:
        return Reason.NO_STORE
    return Reason.TTL_ZERO if entry.expires_at <= entry.created_at else None


def _allows_stale_on_error(ask: Ask, setting: Setting) -> bool:
    wanted = ask.controls.stale_if_error
    return bool(setting.rules.stale_if_error if wanted is None else wanted)


def _from_cache(found: Found[Entry], outcome: Outcome) -> Answer:
    return Answer(outcome, found.reason, found.entry, tier=found.tier, match=Match.EXACT)


def _from_model(made: Made | Answer | Live, outcome: Outcome, reason: Reason) -> Answer:
    if isinstance(made, Answer):
        return made
    if isinstance(made, Live):
        return Answer(outcome, reason, raw=made)
    return Answer(outcome, reason, made.entry, made.raw, refused=made.refused)
