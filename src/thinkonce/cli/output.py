"""How commands print: JSON for programs, tables for people, and no colour in a pipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

__all__ = (
    "console",
    "print_json",
    "print_pairs",
    "print_table",
    "progress",
    "reporting",
    "show_bytes",
    "show_count",
    "show_seconds",
)

# Outside a terminal no line is broken: programs and files want a row in one piece.
PIPE_WIDTH = 1_000_000
GAP = 2  # between columns

_SPANS = (("d", 86_400.0), ("h", 3600.0), ("m", 60.0))
_SIZES = (("GiB", 2.0**30), ("MiB", 2.0**20), ("KiB", 2.0**10))


def console() -> Console:
    """On stdout; made when used, because tests and pipes replace stdout."""
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(file=sys.stdout, width=width, highlight=False, markup=False, soft_wrap=False)


def progress() -> Progress:
    """A bar on stderr, gone when done; none where nobody watches."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    watched = sys.stderr.isatty()
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not watched)


@contextmanager
def reporting(first: str) -> Iterator[Callable[[str, float | None], None]]:
    """A bar behind a callback: what is being done, and the share done (None: unknown)."""
    with progress() as bar:
        task = bar.add_task(first, total=None)

        def report(what: str, fraction: float | None) -> None:
            bar.update(task, description=what, completed=fraction or 0)
            bar.update(task, total=None if fraction is None else 1.0)

        yield report


def print_json(value: object) -> None:
    """Indented JSON, other scripts than Latin left readable."""
    print(json.dumps(msgspec.to_builtins(value), ensure_ascii=False, indent=2))


# Columns of numbers, which stand to the right.
NUMBERS = frozenset(
    {
        *("BYTES", "TOKENS", "AGE", "TTL", "CALLS", "ITEMS", "MONEY", "TIME", "UNPRICED"),
        *("UP TO", "MEMORY", "DISK", "USED", "HITS", "LIFE"),
    }
)


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    title: str = "",
    *,
    spare: Sequence[str] = (),
) -> None:
    """Heads stay whole. `spare`: what is left out, in this order, in a terminal too narrow for all;
    then cells are cut, but for those of the first column.
    """
    out, told = console(), list(rows)
    widths = _widths(columns, told)
    left = _left_out(widths, spare, out.width)
    if spare:
        _cut(widths, out.width)
    table = Table(box=None, pad_edge=False, title=title or None, title_justify="left")
    for column, width in widths.items():
        table.add_column(
            column,
            justify="right" if column in NUMBERS else "left",
            overflow="ellipsis" if spare else "fold",
            width=width if spare else None,
            min_width=cell_len(column),
        )
    for row in told:
        cells = zip(columns, row, strict=True)
        table.add_row(*(cell for column, cell in cells if column in widths))
    with out.capture() as drawn:
        out.print(table)
    print("\n".join(line.rstrip() for line in drawn.get().splitlines()))
    if left:
        print(f"(too wide for this terminal: {', '.join(left)}; --json shows all)")


def _widths(columns: Sequence[str], rows: list[Sequence[str]]) -> dict[str, int]:
    cells = zip(columns, *rows, strict=True)
    return {column[0]: max(map(cell_len, column)) for column in cells}


def _left_out(widths: dict[str, int], spare: Sequence[str], room: int) -> list[str]:
    left = list[str]()
    for name in spare:
        if _needed(widths) <= room:
            break
        del widths[name]
        left.append(name)
    return left


def _cut(widths: dict[str, int], room: int) -> None:
    """The widest first, none below its head."""
    _, *others = widths
    while (excess := _needed(widths) - room) > 0:
        slack = {name: widths[name] - cell_len(name) for name in others}
        widest = max(others, key=lambda name: slack[name])
        if slack[widest] <= 0:
            break
        widths[widest] -= min(excess, slack[widest])


def _needed(widths: dict[str, int]) -> int:
    return sum(widths.values()) + GAP * (len(widths) - 1)


def print_pairs(pairs: dict[str, Any], indent: str = "") -> None:
    """Nested mappings, one value a line."""
    for name, value in pairs.items():
        label = f"{indent}{str(name).replace('_', ' ')}"
        if isinstance(value, dict) and value:
            print(label)
            print_pairs(value, indent + "  ")
        else:
            print(f"{label:<24} {_plain(value)}")


def _plain(value: object) -> str:
    if value is None or value == {}:
        return "-"
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def show_count(number: int) -> str:
    """1 -> "1 entry", 20 -> "20 entries"."""
    return f"{number:,} {'entry' if number == 1 else 'entries'}"


def show_seconds(seconds: float | None) -> str:
    """3600 -> "1h", 90.4 -> "1.5m", None -> "-"."""
    if seconds is None:
        return "-"
    for unit, span in _SPANS:
        if abs(seconds) >= span:
            return f"{seconds / span:.3g}{unit}"
    return f"{seconds:.3g}s"


def show_bytes(count: float | None) -> str:
    """268435456 -> "256MiB", None -> "-"."""
    if count is None:
        return "-"
    for unit, size in _SIZES:
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.0f}B"
