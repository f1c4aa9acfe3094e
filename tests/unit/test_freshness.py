"""How long an answer lives, and what it is good for at each moment."""

from __future__ import annotations

from math import exp, inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkonce.entry import Entry, Meta, localise
from thinkonce.errors import ConfigError
from thinkonce.freshness import (
    EARLY_WINDOW,
    Rules,
    Verdict,
    inline_until,
    judge,
    life_of,
)
from thinkonce.outcome import Reason
from thinkonce.request.controls import Controls
from thinkonce.testing.clock import FakeClock
from thinkonce.ttl_classes import TTL_CLASSES, TtlClass

NOW = 1_000_000.0
seconds = st.floats(0, 1e6)


def entry_of(life, clock, made_in=0.0):
    entry = Entry(
        key="k",
        payload="answer",
        meta=Meta(),
        seconds=made_in,
        created_at=clock.wall(),
        expires_at=life.expires_at,
        gone_at=life.gone_at,
        stale_while_revalidate=life.stale_while_revalidate,
        stale_if_error=life.stale_if_error,
    )
    localise(entry, clock)
    return entry


def verdict_at(rules, controls=None, *, after, chance=1.0, made_in=0.0):
    controls = controls or Controls()
    clock = FakeClock(NOW)
    life = life_of(Controls(), rules, NOW, lambda: 0.0)
    entry = entry_of(life, clock, made_in)
    clock.advance(after)
    return judge(entry, controls, rules, (clock.wall(), clock.monotonic()), chance)


@pytest.mark.parametrize(
    ("name", "seconds", "priority"),
    [
        ("hot", 300, "high"),
        ("warm", 1800, "medium"),
        ("cold", 7200, "low"),
        ("realtime", 300, "medium"),
        ("dynamic", 3600, "medium"),
        ("static", 86400, "medium"),
    ],
)
def test_a_class_is_a_life_and_a_priority(name, seconds, priority):
    assert Rules().parse_ttl(name) == (seconds, priority)
    assert name in TTL_CLASSES


def test_the_table_of_classes_can_be_replaced():
    rules = Rules(ttl_classes={"weekly": TtlClass(604800, "low")})
    assert rules.parse_ttl("weekly") == (604800, "low")
    with pytest.raises(ConfigError, match=r"ttl='hot' .*a class: weekly"):
        rules.parse_ttl("hot")


@pytest.mark.parametrize(
    ("given", "seconds"), [(None, inf), (90, 90), (0, 0), ("5m", 300), ("1h", 3600), (inf, inf)]
)
def test_a_life_is_given_in_seconds_or_as_people_write_it(given, seconds):
    assert Rules().parse_ttl(given) == (seconds, None)


@pytest.mark.parametrize("given", [-1, "soon", "5 fortnights", float("nan"), True])
def test_a_life_that_cannot_be_is_named(given):
    with pytest.raises(ConfigError, match="ttl="):
        Rules().parse_ttl(given)


@pytest.mark.parametrize("name", ["jitter", "early_refresh"])
def test_rules_that_cannot_work_are_named(name):
    with pytest.raises(ConfigError, match=f"{name}=-1"):
        Rules(**{name: -1})
    with pytest.raises(ConfigError):
        Rules(jitter=1.5)


@given(ttl=seconds, jitter=st.floats(0, 1), chance=st.floats(0, 1, exclude_max=True))
def test_jitter_shortens_a_life_and_never_prolongs_it(ttl, jitter, chance):
    life = life_of(Controls(), Rules(ttl=ttl, jitter=jitter), NOW, lambda: chance)
    assert NOW + ttl * (1 - jitter) - 1e-6 <= life.expires_at <= NOW + ttl


@pytest.mark.parametrize("controls", [Controls(priority="pinned"), Controls(preload=True)])
def test_what_is_pinned_lives_as_long_as_was_said(controls):
    life = life_of(controls, Rules(ttl=100, jitter=0.5), NOW, lambda: 0.999)
    assert life.expires_at == NOW + 100


@given(ttl=seconds, asked=seconds, max_age=seconds, kept=seconds)
def test_no_answer_outlives_the_absolute_maximum_age(ttl, asked, max_age, kept):
    rules = Rules(ttl=ttl, max_age=max_age, retention=kept, jitter=0)
    life = life_of(Controls(ttl=asked), rules, NOW, lambda: 0.0)
    assert life.expires_at <= life.gone_at <= NOW + max_age


@given(retention=seconds, revalidate=seconds, if_error=seconds)
def test_an_expired_answer_is_kept_as_long_as_anybody_may_want_it(retention, revalidate, if_error):
    rules = Rules(
        ttl=10,
        jitter=0,
        retention=retention,
        stale_while_revalidate=revalidate,
        stale_if_error=if_error,
    )
    life = life_of(Controls(), rules, NOW, lambda: 0.0)
    assert life.gone_at == NOW + 10 + max(retention, revalidate, if_error)


def test_without_expiry_an_answer_lives_for_ever():
    life = life_of(Controls(), Rules(jitter=1.0), NOW, lambda: 0.999999)
    assert (life.expires_at, life.gone_at) == (inf, inf)
    assert verdict_at(Rules(), after=1e12) == (Verdict.FRESH, None)


def test_the_request_may_name_a_class_or_seconds_of_its_own():
    def expires(controls):
        return life_of(controls, Rules(ttl=7, jitter=0), NOW, lambda: 0.0).expires_at - NOW

    assert expires(Controls(ttl_class="cold")) == 7200
    assert expires(Controls(ttl=3.0)) == 3
    assert expires(Controls()) == 7


def test_fresh_until_the_instant_of_expiry_then_stale_then_a_last_resort_then_useless():
    rules = Rules(ttl=10, jitter=0, stale_while_revalidate=5, stale_if_error=20, early_refresh=0)
    assert verdict_at(rules, after=9.99) == (Verdict.FRESH, None)
    assert verdict_at(rules, after=10) == (Verdict.STALE, Reason.EXPIRED)
    assert verdict_at(rules, after=14.99) == (Verdict.STALE, Reason.EXPIRED)
    assert verdict_at(rules, after=15) == (Verdict.LAST_RESORT, Reason.EXPIRED)
    assert verdict_at(rules, after=29.99) == (Verdict.LAST_RESORT, Reason.EXPIRED)
    assert verdict_at(rules, after=30) == (Verdict.USELESS, Reason.EXPIRED)


def test_a_wall_clock_that_jumps_back_does_not_resurrect():
    rules = Rules(ttl=10, jitter=0)
    clock = FakeClock(NOW)
    entry = entry_of(life_of(Controls(), rules, NOW, lambda: 0.0), clock)
    clock.advance(11)
    clock.jump_wall(-5000)
    now = (clock.wall(), clock.monotonic())
    assert judge(entry, Controls(), rules, now, 1.0)[0] is Verdict.USELESS


def test_max_age_counts_from_the_making_also_for_stale_answers():
    rules = Rules(ttl=10, jitter=0, stale_while_revalidate=60)
    assert verdict_at(rules, Controls(max_age=5.0), after=5)[0] is Verdict.FRESH
    assert verdict_at(rules, Controls(max_age=5.0), after=5.01) == (
        Verdict.LAST_RESORT,
        Reason.TOO_OLD,
    )
    assert verdict_at(rules, Controls(max_age=11.0), after=10.5)[0] is Verdict.STALE
    assert verdict_at(rules, Controls(max_age=11.0), after=11.5)[0] is Verdict.USELESS


def test_min_fresh_wants_life_left():
    rules = Rules(ttl=10, jitter=0)
    assert verdict_at(rules, Controls(min_fresh=2.0), after=8)[0] is Verdict.FRESH
    assert verdict_at(rules, Controls(min_fresh=2.1), after=8)[1] is Reason.TOO_OLD


def test_max_stale_stands_in_place_of_the_entrys_own_rule():
    rules = Rules(ttl=10, jitter=0, stale_while_revalidate=5)
    assert verdict_at(rules, Controls(max_stale=0.0), after=11)[0] is not Verdict.STALE
    assert verdict_at(rules, Controls(max_stale=inf), after=1e6)[0] is Verdict.STALE


@pytest.mark.parametrize(("left", "made_in", "beta"), [(2.0, 2.0, 1.0), (1.0, 4.0, 0.5)])
def test_early_refresh_comes_with_the_probability_of_the_paper(left, made_in, beta):
    """P(early) = exp(-left / (beta * delta)): earlier exactly for chances below that."""
    rules = Rules(ttl=10, jitter=0, early_refresh=beta)
    edge = exp(-left / (beta * made_in))

    def at(chance):
        return verdict_at(rules, after=10 - left, chance=chance, made_in=made_in)[0]

    assert at(edge * 0.999) is Verdict.EARLY
    assert at(edge * 1.001) is Verdict.FRESH


def test_a_probe_answers_only_where_early_refresh_is_out_of_the_question():
    rules = Rules(ttl=100, jitter=0, early_refresh=2.0)
    clock = FakeClock(NOW)
    entry = entry_of(life_of(Controls(), rules, NOW, lambda: 0.0), clock, made_in=3.0)
    assert inline_until(entry, rules) == entry.fresh_until - EARLY_WINDOW * 2.0 * 3.0
    assert exp(-EARLY_WINDOW) < 5e-5
    off = Rules(ttl=100, jitter=0, early_refresh=0)
    assert inline_until(entry, off) == entry.fresh_until
