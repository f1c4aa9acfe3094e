"""The public door: what `from thinkonce import ...` offers, and nothing else."""

from __future__ import annotations

import types

import pytest

import thinkonce

# Promises to users. Adding one is a decision; removing one is a breaking change.
PUBLIC = [
    "Cache",
    "CacheStats",
    "Cached",
    "Clock",
    "ConfigError",
    "CorruptEntry",
    "Explanation",
    "Match",
    "NotCached",
    "Outcome",
    "Reason",
    "RequestError",
    "ThinkOnceError",
    "TierError",
    "TtlClass",
    "UpstreamError",
    "__version__",
    "cached",
]

MOST = 25


def test_the_door_offers_exactly_these_names() -> None:
    assert sorted(thinkonce.__all__) == sorted(PUBLIC)
    assert len(PUBLIC) <= MOST


def test_the_list_is_sorted_so_that_changes_show() -> None:
    assert list(thinkonce.__all__) == sorted(thinkonce.__all__)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_name_exists_and_is_documented(name: str) -> None:
    value = getattr(thinkonce, name)
    assert isinstance(value, str) or (value.__doc__ or "").strip(), f"{name} has no docstring"


def test_nothing_else_lies_in_the_doorway() -> None:
    loose = [
        name
        for name, value in vars(thinkonce).items()
        if not name.startswith("_")
        and name not in thinkonce.__all__
        and not isinstance(value, types.ModuleType)
        and name != "annotations"  # of `from __future__`
    ]
    assert not loose, f"{loose} are visible but not promised: import them under another name"
