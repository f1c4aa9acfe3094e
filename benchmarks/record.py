"""What a benchmark writes down, in one form: results/NAME.json, from which the report is made.

    record("decorator", "A hit costs about what functools.lru_cache costs.", tables, goals, notes)

Every result carries machine, versions, commit and load. Cases are measured in turns within each
round (`interleaved`), so that a slow minute of the machine hits them all.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles

import msgspec

__all__ = (
    "RESULTS",
    "Goal",
    "Plot",
    "Result",
    "Spread",
    "Table",
    "interleaved",
    "record",
    "spread",
)

RESULTS = Path(__file__).parent / "results"


class Table(msgspec.Struct, frozen=True):
    """Rows of text and numbers under `columns`; `chart` names the column drawn as bars.

    `unit` is that of the numbers. Bars start at 0; `log` draws them on a logarithmic scale.
    """

    title: str
    columns: list[str]
    rows: list[list[str | float | int | None]]
    unit: str = ""
    chart: str = ""
    log: bool = False


class Plot(msgspec.Struct, frozen=True):
    """Lines over one another: by name, points (x, y) from left to right; both axes begin at 0."""

    title: str
    x: str
    y: str
    lines: dict[str, list[tuple[float, float]]]


class Goal(msgspec.Struct, frozen=True):
    """One number to reach, e.g. Goal("sync hit / functools.lru_cache", "<= 1.3", 1.21, True)."""

    what: str
    goal: str
    measured: float
    met: bool


class Result(msgspec.Struct, frozen=True):
    name: str
    claim: str
    date: str
    commit: str
    machine: dict[str, str]
    versions: dict[str, str]
    load: list[float]
    tables: list[Table]
    goals: list[Goal]
    notes: list[str]
    plots: list[Plot] = []


class Spread(msgspec.Struct, frozen=True):
    """The 50th, 90th and 99th of a hundred, in the unit that was measured."""

    p50: float
    p90: float
    p99: float


def spread(values: Sequence[float]) -> Spread:
    if len(values) < 2:
        return Spread(values[0], values[0], values[0])
    cuts = quantiles(values, n=100, method="inclusive")
    return Spread(median(values), cuts[89], cuts[98])


def interleaved(
    cases: Mapping[str, Callable[[], object]], rounds: int, repeats: int
) -> dict[str, list[float]]:
    """Seconds of CPU per call of each case, one number a round; `repeats` calls each."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            began = time.process_time()
            for _ in range(repeats):
                case()
            seconds[name].append((time.process_time() - began) / repeats)
    return seconds


def record(
    name: str,
    claim: str,
    tables: Sequence[Table],
    goals: Sequence[Goal] = (),
    notes: Sequence[str] = (),
    *,
    packages: Sequence[str] = (),
    plots: Sequence[Plot] = (),
) -> Path:
    """Write results/NAME.json and return its path. `packages`: distributions whose versions
    matter here, besides this one.
    """
    result = Result(
        name=name,
        claim=claim,
        date=datetime.now(UTC).date().isoformat(),
        commit=_commit(),
        machine=_machine(),
        versions={package: importlib.metadata.version(package) for package in packages},
        load=[round(value, 2) for value in os.getloadavg()],
        tables=list(tables),
        goals=list(goals),
        notes=list(notes),
        plots=list(plots),
    )
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    return path


def _commit() -> str:
    command = ["git", "-C", str(RESULTS.parent), "describe", "--always", "--dirty", "--abbrev=9"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def _machine() -> dict[str, str]:
    return {
        "cpu": _cpu(),
        "cores": str(len(os.sched_getaffinity(0))),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"
