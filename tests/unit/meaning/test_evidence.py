from __future__ import annotations

from math import log
from random import Random

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinkonce.meaning.audit.evidence import (
    CERTIFY_BETS,
    Alarm,
    Stretch,
    counts,
    log_certainty,
    upper_limit,
)

SURE = log(20)  # eta = 5 %


@pytest.mark.parametrize(("delta", "audits"), [(0.01, 435), (0.02, 217), (0.05, 85)])
def test_so_many_audits_without_an_error_certify(delta: float, audits: int) -> None:
    assert log_certainty([(1.0, audits, 0)], delta) >= SURE
    assert log_certainty([(1.0, audits - 1, 0)], delta) < SURE


def crossings(delta: float, true: float, runs: int, audits: int) -> float:
    """Share of runs in which the certifying bet ever reaches 20, looked at after every audit."""
    rng = np.random.default_rng(5)
    wrong = np.cumsum(rng.random((runs, audits)) < true, axis=1)
    right = np.arange(1, audits + 1) - wrong
    capital = np.full((runs, audits), -np.inf)
    for bet in CERTIFY_BETS:
        one = right * np.log1p(bet * delta / (1 - delta)) + wrong * np.log1p(-bet)
        capital = np.logaddexp(capital, one)
    return float((capital - log(len(CERTIFY_BETS)) >= SURE).any(axis=1).mean())


def test_what_is_at_the_budget_is_hardly_ever_certified_however_often_one_looks() -> None:
    assert crossings(0.05, 0.05, runs=600, audits=1500) <= 0.05
    assert crossings(0.05, 0.02, runs=100, audits=1500) > 0.95


def test_the_vectors_of_this_test_are_the_bet_that_ships() -> None:
    found = [40 * np.log1p(bet * 0.02 / 0.98) + 3 * np.log1p(-bet) for bet in CERTIFY_BETS]
    assert log_certainty([(1.0, 40, 3)], 0.02) == pytest.approx(
        np.logaddexp.reduce(found) - log(len(CERTIFY_BETS))
    )


def test_audits_at_unequal_rates_never_certify_what_the_hits_do_not_deserve() -> None:
    """Half the hits are all right and always audited, half fail at 10 % and are audited rarely:
    over all hits 5 % are wrong, among audited ones less than 2 %."""
    passed, rates, runs = 0, (1.0, 0.2), 60
    for seed in range(runs):
        rng = Random(seed)
        stretch = Stretch(rates, [0, 0], [0, 0])
        for at in range(1500):
            band = int(rng.random() < 0.5)
            if rng.random() < rates[band]:
                stretch.add(band, bool(band) and rng.random() < 0.1)
            if at % 25 == 0 and log_certainty(counts([stretch], 1), 0.05) >= SURE:
                passed += 1
                break
    assert passed <= 0.05 * runs + 3
    naive = [(1.0, sum(stretch.right), sum(stretch.wrong))]
    assert log_certainty(naive, 0.05) >= SURE, "without weights this very run is certified"


def test_a_step_counts_the_bands_inside_it_by_their_least_rate() -> None:
    stretch = Stretch((0.1, 0.4, 1.0), [50, 20, 7], [1, 2, 3])
    assert counts([stretch], 0) == [(1.0, 50, 1)]
    assert counts([stretch], 1) == [(1.0, 50, 1), (0.25, 20, 2)]
    assert counts([stretch], 2) == [(1.0, 50, 1), (0.25, 20, 2), (0.1, 7, 3)]


def test_the_upper_limit_covers_the_truth_at_every_look() -> None:
    missed = 0
    for seed in range(40):
        rng, right, wrong = Random(seed), 0, 0
        for at in range(1, 600):
            is_wrong = rng.random() < 0.04
            right, wrong = right + (not is_wrong), wrong + is_wrong
            if at % 20 == 0 and upper_limit([(1.0, right, wrong)], 0.05) < 0.04:
                missed += 1
                break
    assert missed <= 2 + 2


@settings(max_examples=50)
@given(st.integers(0, 2000), st.integers(0, 50))
def test_the_upper_limit_is_where_the_bet_is_won(right: int, wrong: int) -> None:
    audits = [(1.0, right, wrong)]
    limit = upper_limit(audits, 0.05)
    assert 0.0 < limit <= 1.0
    if limit < 0.99:
        assert log_certainty(audits, limit + 1e-6) >= SURE
        assert wrong / (right + wrong) < limit


def test_nothing_is_known_before_the_first_audit() -> None:
    assert upper_limit([], 0.05) > 0.999


LONGEST = 400


def audits_until_alarm(true: float, good_before: int, seed: int) -> int:
    rng, alarm = Random(seed), Alarm()
    for _ in range(good_before):
        alarm.see(False, 1.0, 0.02)
    seen = 0
    while alarm.log_capital() < SURE and seen < LONGEST:
        alarm.see(rng.random() < true, 1.0, 0.02)
        seen += 1
    return seen


def test_a_bad_error_raises_the_alarm_after_tens_of_audits() -> None:
    delays = sorted(audits_until_alarm(0.2, 0, seed) for seed in range(31))
    assert delays[15] <= 25
    delays = sorted(audits_until_alarm(0.1, 0, seed) for seed in range(31))
    assert delays[15] <= 70


def test_a_thousand_good_audits_do_not_deafen_the_alarm() -> None:
    delays = sorted(audits_until_alarm(0.2, 1000, seed) for seed in range(15))
    assert delays[7] <= 80


def test_an_error_at_the_budget_hardly_ever_raises_the_alarm() -> None:
    assert sum(audits_until_alarm(0.02, 0, seed) < LONGEST for seed in range(12)) <= 2


def test_the_alarm_begins_with_a_capital_of_one_and_pays_nothing_on_average() -> None:
    start = Alarm()
    assert start.log_capital() == pytest.approx(0.0)
    after = []
    for is_wrong in (False, True):
        alarm = Alarm()
        alarm.see(is_wrong, 0.5, 0.1)
        after.append(np.exp(alarm.log_capital()))
    assert 0.9 * after[0] + 0.1 * after[1] == pytest.approx(1.0)


def test_the_alarm_survives_any_number_of_errors_and_a_restart() -> None:
    alarm = Alarm()
    for _ in range(2000):
        alarm.see(True, 1.0, 0.01)
    assert alarm.log_capital() > 600
    back = msgspec.msgpack.decode(msgspec.msgpack.encode(alarm), type=Alarm)
    assert back == alarm
