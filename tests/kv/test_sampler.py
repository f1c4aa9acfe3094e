"""How one token is chosen from a row of logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from thinkonce.kv.generation.generator import Sampling
from thinkonce.kv.generation.sampler import Sampler

ROW = torch.tensor([1.0, 3.0, 2.0, 0.0])


def draws(row: torch.Tensor = ROW, times: int = 400, **settings: Any) -> list[int]:
    sampler = Sampler(Sampling(max_tokens=times, **settings), row.numel())
    return [sampler.choose(row) for _ in range(times)]


def test_temperature_zero_takes_the_likeliest() -> None:
    assert set(draws(temperature=0)) == {1}


def test_draws_follow_the_probabilities() -> None:
    found = draws(times=4000, seed=1)
    for token, expected in enumerate(ROW.softmax(-1).tolist()):
        # Four standard deviations of a binomial share; the seed is fixed.
        spread = 4 * (expected * (1 - expected) / 4000) ** 0.5
        assert found.count(token) / 4000 == pytest.approx(expected, abs=spread)


def test_a_lower_temperature_sharpens_and_a_higher_one_flattens() -> None:
    cold, plain, hot = (draws(temperature=t, seed=3).count(1) for t in (0.3, 1.0, 2.0))
    assert cold > plain > hot


def test_top_k_keeps_the_k_likeliest() -> None:
    assert set(draws(temperature=2.0, top_k=2)) == {1, 2}
    assert set(draws(temperature=2.0, top_k=1)) == {1}
    assert set(draws(temperature=2.0, top_k=99)) == {0, 1, 2, 3}


def test_top_p_keeps_the_fewest_that_reach_it() -> None:
    shares = ROW.softmax(-1).tolist()  # 0.09, 0.64, 0.24, 0.03
    assert set(draws(top_p=shares[1] - 0.01)) == {1}
    assert set(draws(top_p=shares[1] + 0.01)) == {1, 2}
    assert set(draws(top_p=0.0)) == {1}, "at least one token stays"


def test_the_seed_decides_the_draws() -> None:
    assert draws(seed=5) == draws(seed=5)
    assert draws(seed=5) != draws(seed=6)
    assert draws(seed=-(2**63)) == draws(seed=-(2**63)), "the smallest seed works"
    assert len(draws(seed=2**63 - 1 + 16)) == 400, "the largest seed and its choices work"


def test_another_answer_drawn_in_between_changes_nothing() -> None:
    one = Sampler(Sampling(max_tokens=9, seed=5), 4)
    other = Sampler(Sampling(max_tokens=9, seed=6), 4)
    mixed = []
    for _ in range(9):
        mixed.append(one.choose(ROW))
        other.choose(ROW)
        torch.rand(3)
    assert mixed == draws(times=9, seed=5)


def test_a_bias_forces_and_bans() -> None:
    assert set(draws(logit_bias={3: 100})) == {3}
    assert 1 not in draws(logit_bias={1: -100})


def test_a_presence_penalty_counts_once_and_a_frequency_penalty_each_time() -> None:
    # Greedy; 1 leads by 1.0, so a presence penalty of 1.5 swaps the two once and for all,
    # while a frequency penalty makes them alternate.
    assert draws(times=4, temperature=0, presence_penalty=1.5) == [1, 2, 1, 1]
    assert draws(times=5, temperature=0, frequency_penalty=0.75) == [1, 1, 2, 1, 2]


def test_the_row_is_left_as_it_was() -> None:
    before = ROW.clone()
    draws(temperature=0.5, top_k=2, top_p=0.5, presence_penalty=1, logit_bias={0: 5})
    assert torch.equal(ROW, before)
