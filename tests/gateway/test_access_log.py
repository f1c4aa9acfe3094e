"""The access log's lines: what they hold, and when."""

from __future__ import annotations

from io import StringIO

import pytest

from thinkonce.gateway.access_log import FLUSH_LINES, AccessLog


class Clock:
    def __init__(self, wall: float) -> None:
        self.wall = wall

    def __call__(self) -> float:
        return self.wall


@pytest.mark.parametrize(
    ("wall", "written"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (951_782_400.0, "2000-02-29T00:00:00.000Z"),
        (1_769_903_999.9994, "2026-01-31T23:59:59.999Z"),
        (1_769_904_000.0625, "2026-02-01T00:00:00.062Z"),
    ],
)
async def test_times_are_rfc_3339_in_utc_with_milliseconds(wall: float, written: str) -> None:
    out = StringIO()
    log = AccessLog(out, wall=Clock(wall))
    log.write("id-1", "POST /v1/chat/completions", 200, "HIT", "", 0.0123)
    log.flush()
    assert out.getvalue() == f"{written} id-1 POST /v1/chat/completions 200 HIT - 12.3ms\n"


async def test_a_second_is_formatted_once_and_never_shown_for_another() -> None:
    out, clock = StringIO(), Clock(100.25)
    log = AccessLog(out, wall=clock)
    for step in (0.5, 0.5, -1.0, 59.0):
        log.write("i", "GET /", 200, "", "", 0.0)
        clock.wall += step
    log.flush()
    times = [line.split()[0][14:] for line in out.getvalue().splitlines()]
    assert times == ["01:40.250Z", "01:40.750Z", "01:41.250Z", "01:40.250Z"]


async def test_lines_are_written_together_and_a_full_batch_at_once() -> None:
    out = StringIO()
    log = AccessLog(out)
    for _ in range(FLUSH_LINES - 1):
        log.write("i", "GET /", 200, "", "", 0.0)
    assert out.getvalue() == ""
    log.write("i", "GET /", 200, "", "", 0.0)
    assert out.getvalue().count("\n") == FLUSH_LINES


async def test_a_log_nobody_reads_any_more_fails_no_request() -> None:
    out = StringIO()
    log = AccessLog(out)
    log.write("i", "GET /", 200, "", "", 0.0)
    out.close()
    log.flush()
    assert not log.enabled
