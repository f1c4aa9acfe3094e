"""A gateway under many mixed requests, and under many streams at a time: by the benchmarks' code.

The default sizes show that every answer is right and nothing is left open; whether memory stays
flat needs the real ones.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"
LARGEST_SLOPE = 64.0  # bytes a request, the lower end of the interval in which it lies
LARGEST_STREAM = 400.0  # KiB


def measured(name: str, *arguments: str, seconds: float) -> Any:
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.slow
def test_mixed_requests_of_several_tenants_are_all_answered_rightly() -> None:
    found = measured("memory", "--requests", "300", seconds=120)
    assert (found["answers"], found["wrong"]) == (300, 0)


@pytest.mark.slow
def test_many_streams_at_a_time_are_whole_and_leave_nothing_open() -> None:
    found = measured("streams", "--streams", "40", "--chunks", "5", "--pause", "0.02", seconds=120)
    for name in ("live", "followed", "replayed"):
        assert found[name]["right"] == 40, name
        assert found[name]["left_open"] <= 8, name


@pytest.mark.slow
def test_memory_is_flat_over_200_000_mixed_requests() -> None:
    found = measured("memory", seconds=1800)
    _, least, _ = found["slope"]
    assert found["wrong"] == 0
    assert least <= LARGEST_SLOPE, f"resident memory grows: {found['rss'][::10]} MiB"


@pytest.mark.slow
def test_1_000_streams_at_a_time_are_whole_and_leave_nothing_open() -> None:
    found = measured("streams", seconds=600)
    for name in ("live", "followed", "replayed"):
        assert found[name]["right"] == 1000, name
        assert found[name]["left_open"] <= 8, name
        assert found[name]["kib"] <= LARGEST_STREAM, name
