from __future__ import annotations

from itertools import pairwise
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinkonce.meaning.verdict.calibration import (
    Curve,
    choose_cut,
    fit_isotonic,
    fit_platt,
    ladder,
    logit,
    sigmoid,
    tallied,
)

# Drawn on a grid: scores a hair apart make a slope that no float can follow.
SCORES = st.lists(
    st.tuples(st.integers(-40, 40).map(lambda at: at / 8), st.integers(0, 1)),
    min_size=1,
    max_size=60,
)


def drawn(count: int, seed: int) -> tuple[list[float], list[int]]:
    """Scores whose chance of being right is sigmoid(2 score - 1)."""
    rng = Random(seed)
    scores = [rng.gauss(0, 1.5) for _ in range(count)]
    return scores, [int(rng.random() < sigmoid(2 * score - 1)) for score in scores]


@settings(max_examples=40)
@given(SCORES)
def test_curves_never_fall(rows: list[tuple[float, int]]) -> None:
    scores, labels = [row[0] for row in rows], [row[1] for row in rows]
    for curve in (fit_isotonic(scores, labels), fit_platt(scores, labels)):
        found = [curve(at / 10) for at in range(-60, 61)]
        assert all(a <= b + 1e-12 for a, b in pairwise(found))
        assert all(0.0 <= chance <= 1.0 for chance in found)


def test_both_curves_find_the_chances_that_scores_stand_for() -> None:
    scores, labels = drawn(6000, seed=3)
    isotonic, platt = fit_isotonic(scores, labels), fit_platt(scores, labels)
    for score in (-1.0, 0.0, 0.5, 1.5):
        assert platt(score) == pytest.approx(sigmoid(2 * score - 1), abs=0.02)
        assert isotonic(score) == pytest.approx(sigmoid(2 * score - 1), abs=0.08)
    assert platt.slope == pytest.approx(2.0, abs=0.15)


def test_a_dozen_right_ones_are_no_certainty() -> None:
    curve = fit_isotonic([1.0] * 12, [1] * 12)
    assert curve(1.0) == pytest.approx(12.5 / 13)


def test_a_score_that_speaks_against_itself_is_taken_as_saying_nothing() -> None:
    curve = fit_platt([0.0, 1.0, 2.0, 3.0] * 10, [1, 1, 0, 0] * 10)
    assert curve.slope == 0.0
    assert curve(0.0) == curve(3.0) == pytest.approx(0.5)


def test_curves_come_back_from_what_is_stored() -> None:
    scores, labels = drawn(500, seed=4)
    for curve in (fit_isotonic(scores, labels), fit_platt(scores, labels)):
        back = msgspec.msgpack.decode(msgspec.msgpack.encode(curve), type=Curve)
        assert back == curve


def test_an_isotonic_curve_is_a_few_hundred_numbers_at_most() -> None:
    scores = [at / 5000 for at in range(5000)]
    curve = fit_isotonic(scores, [int(score > 0.2) for score in scores])
    assert len(curve.scores) <= 200
    assert list(curve.scores) == sorted(set(curve.scores)), "a knot is met once"


@pytest.mark.parametrize("fit", [fit_isotonic, fit_platt])
def test_nothing_comes_of_no_labels(fit: object) -> None:
    assert callable(fit)
    with pytest.raises(ValueError, match="0 scores and 0 labels"):
        fit([], [])


def test_a_cut_is_as_loose_as_the_evidence_allows() -> None:
    scores = [1 - at / 2000 for at in range(2000)]
    labels = [1] * 1000 + [0] * 1000
    cut = choose_cut(scores, labels, 0.02)
    assert cut is not None
    assert 1000 <= cut.accepted < 1020
    assert choose_cut(scores, [0] * 2000, 0.02) is None, "where all is wrong there is no cut"
    assert choose_cut(scores[:100], labels[:100], 0.02) is None, "a hundred prove nothing of 2 %"


def test_equal_scores_are_accepted_together_or_not_at_all() -> None:
    cut = choose_cut([1.0] * 400 + [0.5] * 400, [1] * 400 + [0] * 400, 0.02)
    assert cut is not None
    assert (cut.score, cut.accepted, cut.wrong) == (1.0, 400, 0)


def test_a_wrong_label_at_the_very_top_does_not_forbid_every_cut() -> None:
    scores = [1 - at / 3000 for at in range(3000)]
    labels = [0, 0] + [1] * 2000 + [0] * 998
    cut = choose_cut(scores, labels, 0.01)
    assert cut is not None
    assert cut.accepted >= 1500
    assert choose_cut(scores, labels, 0.01, starts=1) is None


def test_the_promise_of_a_cut_is_kept_as_often_as_it_says() -> None:
    """Cuts chosen on 600 pairs, their true error known: above the budget at most in eta of runs."""
    broken = given_cuts = 0
    for seed in range(80):
        rng = Random(seed)
        scores = [rng.random() for _ in range(600)]
        labels = [int(rng.random() < score) for score in scores]
        cut = choose_cut(scores, labels, 0.2, eta=0.1)
        if cut is not None:
            given_cuts += 1
            broken += (1 - cut.score) / 2 > 0.2  # the mean of 1 - score above the cut
    assert given_cuts > 50
    assert broken <= 0.1 * 80


def test_a_ladder_has_the_promised_cut_on_it_and_looser_ones_below() -> None:
    scores = [1 - at / 2000 for at in range(2000)]
    labels = [1] * 1000 + [0] * 1000
    cuts, first = ladder(tallied(scores, labels), 0.02)
    cut = choose_cut(scores, labels, 0.02)
    assert cut is not None
    assert cuts[first] == cut.score
    assert list(cuts) == sorted(set(cuts), reverse=True)
    assert 0 < first < len(cuts) - 1


def test_a_ladder_promises_nothing_where_no_cut_is_sure() -> None:
    cuts, first = ladder(tallied([0.9, 0.8, 0.7, 0.6], [1, 1, 0, 1]), 0.02)
    assert first == -1
    assert cuts == (0.6,), "so few are all accepted, or none"


def test_a_ladder_reaches_down_to_traffic_where_the_top_is_noisy() -> None:
    scores = [1 - at / 500 for at in range(500)]
    cuts, first = ladder(tallied(scores, [0] + [1] * 300 + [0] * 199), 0.002)
    assert first == -1
    assert cuts[0] < 0.99, "the strictest accepts ten pairs"
    assert len(cuts) == 7


def test_logit_and_sigmoid_undo_each_other_and_stay_finite() -> None:
    assert sigmoid(logit(0.3)) == pytest.approx(0.3)
    assert sigmoid(1000.0) == 1.0
    assert 0.0 <= sigmoid(-1000.0) < 1e-300
    assert logit(1.0) < 25
