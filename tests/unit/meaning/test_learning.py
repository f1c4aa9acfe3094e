from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinkonce.meaning.verdict.calibration import sigmoid
from thinkonce.meaning.verdict.learning import (
    SHIPPED,
    History,
    Observations,
    Prior,
    belief,
    careful,
    chance,
    fit_prior,
    posterior,
)

SEEN = st.lists(
    st.tuples(st.just(1.0), st.floats(-8, 8), st.integers(0, 1)), min_size=0, max_size=20
)


def by_numpy(prior: Prior, seen: Observations) -> tuple[np.ndarray, np.ndarray]:
    """The same mode and curvature by gradient steps, written apart."""
    mean = np.array([prior.offset, prior.slope])
    covariance = np.array(
        [[prior.var_offset, prior.covariance], [prior.covariance, prior.var_slope]]
    )
    precision = np.linalg.inv(covariance)
    x = np.array([[1.0, score] for _, score, _ in seen]).reshape(-1, 2)
    right = np.array([float(label) for *_, label in seen])
    weight = np.array([row[0] for row in seen])
    beta = mean.copy()
    for _ in range(200_000):
        p = 1 / (1 + np.exp(-(x @ beta)))
        gradient = x.T @ (weight * (right - p)) - precision @ (beta - mean)
        beta = beta + 0.002 * covariance @ gradient
        if np.abs(gradient).max() < 1e-9:
            break
    p = 1 / (1 + np.exp(-(x @ beta)))
    return beta, np.linalg.inv(precision + (x.T * (weight * p * (1 - p))) @ x)


def test_the_posterior_is_the_mode_and_its_curvature() -> None:
    prior = Prior(0.2, 0.9, 0.6, 0.05, 0.02)
    seen = [(1.0, 2.0, 1), (0.9, -1.0, 0), (0.8, 3.0, 0), (1.0, 0.5, 1)]
    found = posterior(prior, seen)
    beta, covariance = by_numpy(prior, seen)
    assert (found.offset, found.slope) == pytest.approx(tuple(beta), abs=1e-6)
    assert found.var_offset == pytest.approx(covariance[0, 0], abs=1e-6)
    assert found.var_slope == pytest.approx(covariance[1, 1], abs=1e-6)
    assert found.covariance == pytest.approx(covariance[0, 1], abs=1e-6)


@settings(max_examples=50)
@given(SEEN)
def test_any_history_leaves_a_finite_posterior_no_wider_than_the_prior(
    seen: list[tuple[float, float, int]],
) -> None:
    found = posterior(SHIPPED, seen)
    assert abs(found.offset) < 100
    assert 0 < found.var_offset <= SHIPPED.var_offset * (1 + 1e-9)
    assert 0 < found.var_slope <= SHIPPED.var_slope * (1 + 1e-9)


def test_without_history_the_prior_decides_from_the_first_question() -> None:
    found = posterior(SHIPPED, [])
    assert (found.offset, found.slope) == (SHIPPED.offset, SHIPPED.slope)
    assert chance(SHIPPED, 10.0) > 0.98, "no cold start of six misses"
    assert chance(SHIPPED, 2.0) < 0.98


def test_an_entry_that_was_wrong_is_trusted_less_and_one_that_was_right_more() -> None:
    wrong = posterior(SHIPPED, [(1.0, 3.0, 0)] * 3)
    right = posterior(SHIPPED, [(1.0, 3.0, 1)] * 20)
    assert chance(wrong, 3.0) < chance(SHIPPED, 3.0) < chance(right, 3.0)


def test_a_floor_under_the_chance_is_kept_by_entries_drawn_from_the_prior() -> None:
    """Entries differ as the prior says; served answers are right at least as often as promised."""
    rng = Random(8)
    prior, floor = Prior(0.0, 1.0, 1.0, 0.02), 0.95
    served = right = 0
    for _ in range(400):
        offset, slope = rng.gauss(0, 1.0), rng.gauss(1, 0.02**0.5)
        history = History()
        for _ in range(12):
            score = rng.uniform(-1, 8)
            is_right = rng.random() < sigmoid(offset + slope * score)
            if chance(posterior(prior, history.weighted()), score) >= floor:
                served, right = served + 1, right + is_right
            history.add(score, is_right)
    assert served > 300
    assert right / served >= floor


def test_the_prior_is_found_again_from_the_entries() -> None:
    rng = Random(9)
    histories = []
    for _ in range(250):
        offset, seen = rng.gauss(-1.0, 1.2), []
        for _ in range(8):
            score = rng.uniform(-2, 4)
            seen.append((1.0, score, int(rng.random() < sigmoid(offset + score))))
        histories.append(seen)
    found = fit_prior(histories)
    assert found.offset == pytest.approx(-1.0, abs=0.3)
    assert found.slope == pytest.approx(1.0, abs=0.2)
    assert found.var_offset == pytest.approx(1.44, rel=0.45)


@settings(max_examples=50, deadline=None)
@given(SEEN, st.floats(-8, 8), st.floats(-3, 3), st.floats(0.3, 2))
def test_a_fitted_prior_makes_an_entry_less_sure_or_leaves_it_as_it_is(
    seen: list[tuple[float, float, int]], score: float, offset: float, slope: float
) -> None:
    fitted, rounding = Prior(offset, slope, 1.5, 0.1), 1e-12
    found = careful(belief(fitted, seen), score)
    assert found <= careful(belief(SHIPPED, seen), score) + rounding
    assert found <= chance(posterior(fitted, seen), score) + rounding


def test_without_entries_the_shipped_prior_stands() -> None:
    found = fit_prior([])
    assert (found.offset, found.var_offset) == (SHIPPED.offset, SHIPPED.var_offset)


def test_old_observations_weigh_less_and_the_oldest_are_let_go() -> None:
    history = History()
    for at in range(100):
        history.add(float(at % 5), at > 90)
    seen = history.weighted()
    assert len(seen) == 32
    assert [weight for weight, *_ in seen] == sorted(weight for weight, *_ in seen)
    assert seen[-1][0] == 1.0


def test_an_entry_that_changed_for_the_better_is_trusted_again() -> None:
    history = History()
    for _ in range(20):
        history.add(3.0, False)
    before = chance(posterior(SHIPPED, history.weighted()), 3.0)
    for _ in range(40):
        history.add(3.0, True)
    assert chance(posterior(SHIPPED, history.weighted()), 3.0) > before + 0.3


def test_a_score_that_is_beyond_all_bounds_is_taken_as_the_bound() -> None:
    history = History()
    history.add(1e9, True)
    assert chance(SHIPPED, 1e9) == chance(SHIPPED, 12.0)
    assert posterior(SHIPPED, history.weighted()).offset < 1
