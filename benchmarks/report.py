"""docs/benchmarks.md and its charts, from results/*.json; called by docs/generate.py."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from math import log10

import msgspec
from plot import drawing
from record import RESULTS, Goal, Plot, Result, Table

__all__ = ("benchmark_pages",)

INTRODUCTION = """# Benchmarks

Each number comes from one command anyone can run: `make bench`, or `make bench NAME=name`. Ratios
compare cases measured in turns inside one run; absolute numbers belong to the machine named.
"""
LABEL, BAR, ROW, TAIL = 260, 380, 26, 120  # pixels


def benchmark_pages(head: str) -> dict[str, str]:
    """File name under docs/ -> text: the page and one SVG per table that asks for a chart."""
    files = sorted(RESULTS.glob("*.json"))
    results = [msgspec.json.decode(file.read_bytes(), type=Result) for file in files]
    pages = {"benchmarks.md": head + INTRODUCTION + "".join(map(section, results))}
    for result in results:
        for number, table in enumerate(result.tables):
            if table.chart:
                pages[chart_name(result, number)] = chart(table)
        pages |= {plot_name(result, plot): drawing(plot) for plot in result.plots}
    return pages


def chart_name(result: Result, number: int) -> str:
    return f"charts/{result.name}-{number}.svg"


def plot_name(result: Result, plot: Plot) -> str:
    return f"charts/{result.name}-{plot.title}.svg"


def section(result: Result) -> str:
    return "".join(
        (
            f"\n## {result.name}\n\n{result.claim}\n",
            *goals(result.goals),
            *(part for number in range(len(result.tables)) for part in shown(result, number)),
            *(f"\n![{plot.title}]({plot_name(result, plot)})\n" for plot in result.plots),
            *(f"\n{note}\n" for note in result.notes),
            f"\n<sub>{provenance(result)}</sub>\n",
        )
    )


def goals(goals: list[Goal]) -> Iterator[str]:
    if goals:
        yield "\n| goal | wanted | measured | |\n|---|---|---|---|\n"
    for goal in goals:
        met = "met" if goal.met else "**missed**"
        yield f"| {goal.what} | {goal.goal} | {number_text(goal.measured)} | {met} |\n"


def shown(result: Result, number: int) -> Iterator[str]:
    table = result.tables[number]
    unit = f" ({table.unit})" if table.unit else ""
    yield f"\n**{table.title}**{unit}\n\n| {' | '.join(table.columns)} |\n"
    yield "|---" + "|---:" * (len(table.columns) - 1) + "|\n"
    for row in table.rows:
        yield f"| {' | '.join(map(cell, row))} |\n"
    if table.chart:
        yield f"\n![{table.title}]({chart_name(result, number)})\n"


def cell(value: str | float | int | None) -> str:
    if value is None:
        return "-"
    return value.replace("|", "\\|") if isinstance(value, str) else number_text(value)


def number_text(value: float) -> str:
    """Three digits that count; no exponent from a hundred-thousandth to a million."""
    if value == 0 or abs(value) >= 1e6:
        return f"{value:.3g}"
    if 0 < abs(value) < 1e-5:
        return f"{value:.1e}"
    digits = max(0, 2 - int(log10(abs(value)) // 1))
    return f"{value:,.{min(digits, 6)}f}"


def provenance(result: Result) -> str:
    facts = [*result.machine.values(), *(f"{k} {v}" for k, v in result.versions.items())]
    load = " ".join(map(str, result.load))
    return f"{result.date}, commit {result.commit}, {', '.join(facts)}, load {load}"


# -- charts: plain SVG, shown by code hosts without a script ----------------------------------


def chart(table: Table) -> str:
    at = table.columns.index(table.chart)
    bars = [
        (str(row[0]), float(value))
        for row in table.rows
        if isinstance(value := row[at], int | float)
    ]
    height = ROW * len(bars) + 40
    width = LABEL + BAR + TAIL
    title = f"{table.title}: {table.chart}" + (f", {table.unit}" if table.unit else "")
    return "".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">\n',
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>\n',
            f'<text x="8" y="20" font-weight="bold">{escape(title)}</text>\n',
            *(drawn(bar, number, scale(table, bars)) for number, bar in enumerate(bars)),
            "</svg>\n",
        )
    )


def scale(table: Table, bars: list[tuple[str, float]]) -> tuple[float, float, bool]:
    """Smallest and largest value of the axis, and whether it is logarithmic."""
    values = [value for _, value in bars if value > 0] or [1.0]
    return (min(values) / 2 if table.log else 0.0), max(values), table.log


def drawn(bar: tuple[str, float], number: int, axis: tuple[float, float, bool]) -> str:
    (name, value), (least, most, logarithmic) = bar, axis
    if logarithmic:
        share = log10(value / least) / log10(most / least) if value > 0 else 0.0
    else:
        share = max(value, 0.0) / most
    y = 32 + number * ROW
    colour = "#1f6f8b" if name.startswith("thinkonce") else "#9aa5b1"
    return (
        f'<text x="{LABEL - 8}" y="{y + 15}" text-anchor="end">{escape(name)}</text>'
        f'<rect x="{LABEL}" y="{y}" width="{share * BAR:.1f}" height="{ROW - 6}" fill="{colour}"/>'
        f'<text x="{LABEL + share * BAR + 6:.1f}" y="{y + 15}">{number_text(value)}</text>\n'
    )
