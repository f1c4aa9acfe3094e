"""Lines as plain SVG, shown by code hosts without a script."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from math import log10

from record import Plot

__all__ = ("drawing",)

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 56, 190, 36, 44  # margins; names stand at the right
# Told apart by colour and by dashes, so that print and colour-blind readers can too.
STYLES = (
    ("#1f6f8b", ""), ("#7fb2c5", "7 3"), ("#b5651d", "3 3"), ("#6b7280", "1 3"), ("#8b1f5a", "9 4"),
)  # fmt: skip
TICKS = 5


def drawing(plot: Plot) -> str:
    points = [point for line in plot.lines.values() for point in line]
    most = (_round_up(max(x for x, _ in points)), _round_up(max(y for _, y in points)))
    return "".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
            f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">\n',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>\n',
            f'<text x="{LEFT}" y="20" font-weight="bold" font-size="13">{escape(plot.title)}: '
            f"{escape(plot.y)} against {escape(plot.x)}</text>\n",
            *_axes(plot, most),
            *_lines(plot, most),
            "</svg>\n",
        )
    )


def _axes(plot: Plot, most: tuple[float, float]) -> Iterator[str]:
    for step in range(TICKS + 1):
        x, y = most[0] * step / TICKS, most[1] * step / TICKS
        right, up = _place((x, y), most)
        yield (
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up:.1f}" y2="{up:.1f}" stroke="#e5e7eb"/>'
            f'<text x="{LEFT - 6}" y="{up + 4:.1f}" text-anchor="end">{y:g}</text>'
            f'<text x="{right:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{x:g}</text>\n'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(plot.x)}</text>\n'


def _lines(plot: Plot, most: tuple[float, float]) -> Iterator[str]:
    for number, (name, line) in enumerate(plot.lines.items()):
        colour, dashes = STYLES[number % len(STYLES)]
        drawn = " ".join("{:.1f},{:.1f}".format(*_place(point, most)) for point in line)
        style = f'stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}" fill="none"'
        beside, y = WIDTH - RIGHT + 12, TOP + 14 + number * 20
        yield f'<polyline points="{drawn}" {style}/>'
        yield f'<line x1="{beside}" x2="{beside + 24}" y1="{y - 4}" y2="{y - 4}" {style}/>'
        yield f'<text x="{beside + 30}" y="{y}">{escape(name)}</text>\n'


def _place(point: tuple[float, float], most: tuple[float, float]) -> tuple[float, float]:
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    return LEFT + wide * point[0] / most[0], HEIGHT - BOTTOM - high * point[1] / most[1]


def _round_up(value: float) -> float:
    """To 1, 2 or 5 of some unit, so that ticks are round numbers; 1 where nothing is above 0."""
    if value <= 0:
        return 1.0
    unit: float = 10.0 ** int(log10(value) // 1)
    return next(n * unit for n in (1, 2, 5, 10) if round(value / unit, 9) <= n)
