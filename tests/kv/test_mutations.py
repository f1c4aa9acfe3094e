"""What is told of a miss is what was done: one change each of prompts that were read."""

from __future__ import annotations

import pytest
from kv_mutations import KINDS, scores


def wrong(seed: int, each: int) -> tuple[int, list[str]]:
    """How many cases there were, and those of which another cause or place was told."""
    found = list(scores(seed, each))
    assert {score.kind for score in found} == set(KINDS)
    return len(found), [
        f"{score.kind}: {score.case.cause} was told as {score.told.cause}, by the reading as "
        f"{score.told_by_reading.cause}; {score.told.difference}"
        for score in found
        if not (score.cause_is_right and score.place_is_right)
    ]


def test_every_kind_of_change_is_told_as_what_it_was() -> None:
    assert wrong(seed=1, each=1)[1] == []


@pytest.mark.slow
def test_of_five_hundred_changes_hardly_any_is_told_otherwise() -> None:
    cases, others = wrong(seed=20261122, each=20)
    assert cases >= 500
    assert len(others) <= 0.02 * cases, others
