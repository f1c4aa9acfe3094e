"""The life of one request: key -> tiers -> one call for many askers -> model -> record.

`answer` is the whole policy, written once. It performs no I/O: it yields the step it wants done
and receives that step's result, so that blocking code, asyncio code and the gateway share it and
differ only in who carries the steps out (`drive.py`).

    answer ──► look ──► fresh? ──────────────────────────────► HIT
                  │ early / stale-while-revalidate ──► Renew ─► HIT / STALE
                  ▼
                MatchWords ──► another entry ──► look ── fresh ► HIT
                  ▼
                Join ──► follow another's call ───────────────► COALESCED
                  │ lead
                  ▼
                lead ──► CallModel ──► draft ──► Keep ────────► MISS / REFRESH
                             │ failed, a stale entry may answer ► STALE
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import Generic, TypeVar

import msgspec

from thinkonce.entry import Entry
from thinkonce.errors import NotCached
from thinkonce.flights.singleflight import Fate, Landing, Role, Seat
from thinkonce.freshness import Verdict, inline_until, is_fresh_for, judge, life_of
from thinkonce.likeness import Matched
from thinkonce.outcome import Match, Outcome, Reason
from thinkonce.steps import (
    Answer,
    Ask,
    CallModel,
    Draft,
    Flow,
    Follow,
    Join,
    Keep,
    Lead,
    Live,
    Look,
    Made,
    MatchWords,
    Renew,
    Setting,
)
from thinkonce.tiers.tier import Key, Tier

__all__ = ("answer", "examine", "lead")

T = TypeVar("T")

# Seconds. Calls of other processes can be followed for longer than that after they have landed
# (`backing.COMMITTED_WITHIN`), so a look at the store that is no older need not be repeated.
LOOKED_LATELY = 0.1


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """The best entry the tiers hold: what it is good for, and why it is not better."""

    entry: T
    tier: str
    verdict: Verdict
    reason: Reason | None


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
        # Only-if-cached forbids the model, in the background too: `Cache.get` has none.
        must_renew = found.verdict is not Verdict.FRESH and not ask.controls.only_if_cached
        is_stale = found.verdict is Verdict.STALE
        if not (must_renew and (yield Renew(ask)) and is_stale):
            return _from_cache(found, Outcome.STALE if is_stale else Outcome.HIT, ask)
        found = _without_renewal(found, ask, setting)
    if ask.likeness is not None and reason is not Reason.REFRESHED:
        in_other_words = yield from _in_other_words(ask, setting)
        if in_other_words is not None:
            return in_other_words
    if ask.controls.only_if_cached:
        raise NotCached(reason.value)
    try:
        told = yield from _ask_the_model(ask, ask.key, setting, reason)
    except Exception:
        if found is None or found.verdict is not Verdict.LAST_RESORT or not ask.stale_on_error:
            raise
        if found.reason is Reason.TOO_OLD and not _allows_stale_on_error(ask, setting):
            raise
        return _from_cache(found, Outcome.STALE, ask)
    told.thaw = ask.thaw
    return told


_SERVABLE = (Verdict.FRESH, Verdict.EARLY, Verdict.STALE)
_LIVE = (Verdict.FRESH, Verdict.EARLY)


def _in_other_words(ask: Ask, setting: Setting) -> Flow[Answer | None]:
    """What is stored for a question that means the same; read and judged as under its own key."""
    matched: Matched | None = yield MatchWords(ask)
    if matched is None:
        return None
    other = replace(ask, key=matched.key, likeness=None)
    found = yield from _look(other, setting)
    ask.trouble = ask.trouble or other.trouble
    if found is None or found.verdict not in _LIVE:
        return None
    if matched.audit and not ask.controls.only_if_cached:
        yield Renew(ask)
    answer = _from_cache(replace(found, reason=None), Outcome.HIT, ask)
    answer.match, answer.similarity = matched.match, matched.similarity
    answer.question = matched.question
    return answer


def _without_renewal(found: Found[Entry], ask: Ask, setting: Setting) -> Found[Entry]:
    """What an expired entry is good for where nobody makes a new one in the background."""
    now = (setting.clock.wall(), setting.clock.monotonic())
    controls = msgspec.structs.replace(ask.controls, max_stale=0.0)
    verdict, why = judge(found.entry, controls, setting.rules, now, 1.0)
    return replace(found, verdict=verdict, reason=why)


def _look_unless_refreshing(
    ask: Ask, key: Key, setting: Setting
) -> Flow[tuple[Found[Entry] | None, Reason]]:
    if ask.controls.refresh or not ask.controls.read:
        return None, Reason.REFRESHED
    ask.looked = setting.clock.monotonic()
    found = yield from _look(ask, setting)
    if found is not None and found.reason is not None:
        return found, found.reason
    if ask.trouble:
        return found, Reason.TIER_ERROR
    return found, setting.why_gone(key) or Reason.NEW


def examine(ask: Ask, setting: Setting) -> Flow[Found[Entry] | None]:
    """What a look for `ask` would find now; nothing is noted, copied or renewed."""
    return (yield from _look(ask, setting, peek=True))


def _look(
    ask: Ask, setting: Setting, *, peek: bool = False, near: bool = False
) -> Flow[Found[Entry] | None]:
    """The first servable entry, nearest tier first, copied into nearer ones; else the best.

    `near`: of tiers that do not outlive the process.
    """
    best: Found[Entry] | None = None
    for depth, tier in enumerate(setting.tiers):
        if near and tier.persistent:
            continue
        entry: Entry | None = yield Look(tier, ask, peek)
        if entry is None:
            continue
        now = (setting.clock.wall(), setting.clock.monotonic())
        chance = 1.0 if peek else 1 - setting.chance()
        verdict, why = judge(entry, ask.controls, setting.rules, now, chance)
        if verdict in _SERVABLE:
            if peek:
                return Found(entry, tier.name, verdict, why)
            if depth:
                # Its tier has applied every purge up to this request; a nearer one must not
                # doubt an entry that is older than the purges it still remembers.
                entry.epoch = ask.epoch
                if ask.thaw is not None and entry.thaw is not None:
                    entry.thaw = ask.thaw  # nobody else has this copy yet; probes will use it
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
    began, joined_again = setting.clock.wall(), False
    seat: Seat | None = (yield Join(ask)) if ask.coalesce else None
    role = Role.THROUGH if seat is None else seat.role
    while seat is not None and role is not Role.THROUGH:
        led = role is Role.LEAD
        landing: Landing = yield (Lead(ask, seat) if led else Follow(ask, seat))
        if landing.fate is Fate.FAILED:
            failure = _failure(landing, led)
            try:
                raise failure
            finally:
                del failure, landing  # else the traceback would keep its own frame alive
        if landing.fate is not Fate.COALESCED:
            # The leader went away: this caller leads now, or nobody can be waited for.
            role = Role.LEAD if landing.fate is Fate.LEAD else Role.THROUGH
        elif not led and _is_from_before(landing.value, ask, setting, began):
            seat = None if joined_again else (yield Join(ask))
            role, joined_again = Role.THROUGH if seat is None else seat.role, True
        else:
            return _settle(landing.value, led, outcome, reason)
    made = yield from lead(ask, setting)
    return _from_model(made, outcome, reason)


def _is_from_before(value: object, ask: Ask, setting: Setting, began: float) -> bool:
    """Whether the answer of another's call is one that `ask`, which began later, must not get.

    A purge between the two means it; or it was complete before `ask` began, and is not one that
    a look-up could have found.
    """
    entry = value.entry if isinstance(value, Made | Answer) else None
    if entry is None:
        return False
    if entry.epoch < ask.epoch and setting.purged(entry):
        return True
    refused = isinstance(value, Made) and value.refused is not None
    return entry.created_at < began and (
        refused or ask.controls.refresh or not is_fresh_for(entry, ask.controls, began)
    )


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
    the leader; without a second look two calls would be made. What this process stored lies near;
    what another one stored so lately would have been followed, see `LOOKED_LATELY`.
    """
    if look_again and not ask.controls.refresh and ask.controls.read:
        ago = setting.clock.monotonic() - (-inf if ask.looked is None else ask.looked)
        found = yield from _look(ask, setting, near=ago < LOOKED_LATELY)
        if found is not None and found.verdict is Verdict.FRESH:
            return _from_cache(found, Outcome.HIT, ask)
    started = setting.clock.monotonic() if ask.started is None else ask.started
    raw = yield CallModel(ask)
    if isinstance(raw, Live | Answer):
        return raw
    changed = Reason.CHANGED if ask.intact is not None and not ask.intact() else None
    seconds = setting.clock.monotonic() - started
    entry = _entry_of(ask, draft := ask.draft(raw, seconds), setting, seconds)
    refused = changed or draft.refused or _refusal(ask, entry)
    if refused is None:
        likeness = ask.likeness
        if likeness is not None:
            entry.hint = likeness.hint()
        for tier in setting.tiers:
            yield from _keep(ask, entry, tier, setting)
        if likeness is not None:
            likeness.made(entry)
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
        request=draft.request,
    )


def _refusal(ask: Ask, entry: Entry) -> Reason | None:
    if not ask.controls.store:
        return Reason.NO_STORE
    return Reason.TTL_ZERO if entry.expires_at <= entry.created_at else None


def _allows_stale_on_error(ask: Ask, setting: Setting) -> bool:
    wanted = ask.controls.stale_if_error
    return bool(setting.rules.stale_if_error if wanted is None else wanted)


def _from_cache(found: Found[Entry], outcome: Outcome, ask: Ask) -> Answer:
    return Answer(
        outcome, found.reason, found.entry, tier=found.tier, match=Match.EXACT, thaw=ask.thaw
    )


def _from_model(made: Made | Answer | Live, outcome: Outcome, reason: Reason) -> Answer:
    if isinstance(made, Answer):
        return made
    if isinstance(made, Live):
        return Answer(outcome, reason, raw=made)
    return Answer(outcome, reason, made.entry, made.raw, refused=made.refused)
