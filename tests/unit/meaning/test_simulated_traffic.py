"""The caches that are compared in simulated traffic, on a stream small enough to follow."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[3] / "benchmarks" / "semantic"))

import vcache
from caches import Learner, Ours, Threshold, VCache
from replay import Tally, oracle, replay
from stream import NEAREST, Stream, mixes

from thinkonce.meaning.audit.budget import Budget, Mode
from thinkonce.meaning.verdict.calibration import logit, sigmoid

GROUPS, MEMBERS = 40, 60


@pytest.fixture(scope="module")
def stream() -> Stream:
    """Entries differ in how similar a question must be, which is what learning by entry is for.

    Each text has a group and one neighbour that matters: the group's first text, at a cosine.
    Whether the answer fits is drawn with a chance that rises with the cosine from a threshold of
    the group's own; where it does not, the text is a group of its own.
    """
    rng = Random(7)
    texts, groups, cosines = [], [], []
    for group in range(GROUPS):
        threshold = rng.uniform(0.4, 0.9)
        for member in range(MEMBERS):
            cosine = rng.uniform(0.3, 1.0)
            right = member == 0 or rng.random() < sigmoid(40 * (cosine - threshold))
            texts.append(f"{group} {member}")
            groups.append(group if right else GROUPS + len(texts))
            cosines.append(0.0 if member == 0 else cosine)
    count = len(texts)
    nearest = np.full((count, NEAREST), -1)
    nearest[:, 0] = np.repeat(np.arange(GROUPS) * MEMBERS, MEMBERS)
    near = np.zeros((count, NEAREST), dtype=np.float32)
    near[:, 0] = cosines
    firsts = [group * MEMBERS for group in range(GROUPS)]
    rest = [at for at in range(count) if at % MEMBERS]
    rng.shuffle(rest)
    requests = np.array(firsts + rest)
    return Stream(texts, np.array(groups), requests, nearest, near, frozenset(), frozenset())


def by_cosine(text: int, near: list) -> list[tuple[int, float]]:
    return [(found.entry, found.cosine) for found in near[:1]]


def as_logit(text: int, near: list) -> list[tuple[int, float]]:
    return [(found.entry, 12 * (found.cosine - 0.65)) for found in near[:1]]


def last(stream: Stream, cache: object) -> Tally:
    return replay(stream, cache)[-1]  # type: ignore[arg-type]


def test_every_request_is_counted_once(stream: Stream) -> None:
    tallies = replay(stream, Threshold(by_cosine, 0.8))
    assert tallies[-1].requests == len(stream.requests)
    assert [tally.hits for tally in tallies] == sorted(tally.hits for tally in tallies)
    assert tallies[-1].right + tallies[-1].wrong == tallies[-1].hits
    low, high = tallies[-1].error()[1:]
    assert low < tallies[-1].wrong / tallies[-1].hits < high


def test_the_oracle_hits_whatever_belongs_to_a_group_that_was_asked(stream: Stream) -> None:
    sizes = np.bincount(stream.groups)
    assert oracle(stream) == int((sizes[sizes > 1] - 1).sum())
    everything = last(stream, Threshold(by_cosine, 0.0))
    assert everything.right == oracle(stream)


@pytest.mark.slow
def test_learning_by_entry_hits_more_than_the_published_thresholds_at_no_more_error(
    stream: Stream,
) -> None:
    theirs = last(stream, VCache(0.05))
    ours = [last(stream, Learner(as_logit, floor)) for floor in (0.6, 0.75)]
    rights = [tally.right for tally in ours if tally.error()[0] <= theirs.error()[0]]
    assert max(rights, default=0) > 1.15 * theirs.right


def test_a_certified_budget_serves_only_within_it(stream: Stream) -> None:
    cuts = tuple(logit(chance) for chance in (0.97, 0.9, 0.8, 0.6))
    tally = last(stream, Ours(as_logit, cuts, Budget(0.1, 4, "simulation", Mode.CERTIFIED)))
    assert tally.hits > 100
    assert tally.wrong <= 0.1 * tally.hits
    assert 0 < tally.audits < tally.hits


def test_the_mixes_are_fixed_in_their_file() -> None:
    seed, found = mixes()
    assert seed == 20261122
    assert {mix.language for mix in found} == {"en", "zh"}
    assert len({mix.name for mix in found}) == len(found) == 8


def test_the_baseline_explores_until_six_observations_and_less_the_surer_it_is() -> None:
    seen = [(0.9, 1), (0.95, 1), (0.5, 0), (0.55, 0), (0.92, 1)]
    assert vcache.fit(seen) is None
    assert vcache.explore_chance(None, 0.99, 0.05) == 1.0
    curve = vcache.fit([*seen, (0.6, 0)])
    assert curve is not None
    assert 0.55 < curve.threshold < 0.95
    chances = [vcache.explore_chance(curve, at, 0.05) for at in (0.3, 0.75, 0.99)]
    assert chances == sorted(chances, reverse=True)
    assert chances[0] == pytest.approx(0.95, abs=0.01), "1 - delta where the entry does not fit"


def test_the_baselines_curve_is_the_one_of_largest_likelihood() -> None:
    rng = Random(3)
    seen = [
        (at, int(rng.random() < sigmoid(12 * (at - 0.6))))
        for at in (rng.uniform(0.2, 1) for _ in range(400))
    ]
    curve = vcache.fit(seen)
    assert curve is not None
    assert curve.threshold == pytest.approx(0.6, abs=0.05)
    assert curve.steepness == pytest.approx(12, rel=0.3)
    assert 0 < curve.variance < 0.001
