"""Lines of the servers' logs beside the access log."""

from __future__ import annotations

import logging
import re

import pytest

from thinkonce.web.log_lines import formatter


@pytest.mark.parametrize(("who", "head"), [("", ""), ("model", "model | ")])
def test_times_are_those_of_the_access_log(
    who: str, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    record = logging.LogRecord("thinkonce", logging.WARNING, "", 0, "tier %r", ("sqlite",), None)
    record.created, record.msecs = 1_769_903_999.125, 125.0
    assert formatter(who).format(record) == (
        f"{head}2026-01-31T23:59:59.125Z WARNING tier 'sqlite'"
    )


def test_a_failure_keeps_its_trace_below_the_line() -> None:
    error = ValueError("why")
    found = (ValueError, error, None)
    record = logging.LogRecord("thinkonce", logging.ERROR, "", 0, "failed", (), found)
    first, *rest = formatter().format(record).splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ERROR failed", first)
    assert rest[-1] == "ValueError: why"
