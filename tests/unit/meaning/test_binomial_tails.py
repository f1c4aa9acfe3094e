from __future__ import annotations

from math import comb, inf, log

import pytest

from thinkonce.meaning.verdict.binomial import chance_of_at_most, clopper_pearson, log_sum_exp


@pytest.mark.parametrize(("wrong", "of", "rate"), [(0, 7, 0.3), (3, 12, 0.25), (11, 12, 0.9)])
def test_a_tail_is_the_sum_of_its_terms(wrong: int, of: int, rate: float) -> None:
    terms = (comb(of, k) * rate**k * (1 - rate) ** (of - k) for k in range(wrong + 1))
    assert chance_of_at_most(wrong, of, rate) == pytest.approx(sum(terms), rel=1e-12)


def test_tails_at_the_ends_of_their_range() -> None:
    assert chance_of_at_most(-1, 5, 0.5) == 0.0
    assert chance_of_at_most(5, 5, 0.5) == 1.0
    assert chance_of_at_most(0, 5, 0.0) == 1.0
    assert chance_of_at_most(4, 5, 1.0) == 0.0
    with pytest.raises(ValueError, match=r"-0\.1"):
        chance_of_at_most(1, 5, -0.1)


def test_a_tail_of_many_is_neither_lost_nor_above_one() -> None:
    assert chance_of_at_most(10, 100_000, 0.5) == pytest.approx(0.0, abs=1e-300)
    assert 0.5 < chance_of_at_most(1_000, 100_000, 0.01) < 0.52


# Audits needed until the upper limit at 5 % is at most the budget: a published kind of table,
# which follows from (1 - delta) ** n for none wrong.
@pytest.mark.parametrize(
    ("delta", "needed"),
    [
        (0.01, {0: 299, 1: 473, 2: 628, 3: 773, 5: 1049, 10: 1693}),
        (0.02, {0: 149, 1: 236, 2: 313, 3: 386, 5: 523, 10: 845}),
        (0.05, {0: 59, 1: 93, 2: 124, 3: 153, 5: 208, 10: 336}),
    ],
)
def test_clopper_and_pearson_need_so_many_audits(delta: float, needed: dict[int, int]) -> None:
    for wrong, audits in needed.items():
        assert clopper_pearson(wrong, audits, 0.05)[1] <= delta
        assert clopper_pearson(wrong, audits - 1, 0.05)[1] > delta


def test_limits_enclose_what_was_seen_and_are_open_where_nothing_was() -> None:
    assert clopper_pearson(0, 0, 0.05) == (0.0, 1.0)
    assert clopper_pearson(9, 9, 0.05)[1] == 1.0
    low, high = clopper_pearson(2, 10, 0.025)
    # The two-sided 95 % interval of 2 in 10.
    assert low == pytest.approx(0.02521, abs=1e-5)
    assert high == pytest.approx(0.55610, abs=1e-5)


def test_sums_of_tiny_and_of_huge_terms_stay_finite() -> None:
    assert log_sum_exp([1000.0, 1000.0]) == pytest.approx(1000.0 + log(2))
    assert log_sum_exp([-1000.0, -1000.0]) == pytest.approx(-1000.0 + log(2))
    assert log_sum_exp([]) == -inf
