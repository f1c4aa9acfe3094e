"""Lines of the servers' logs beside the access log."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys

import pytest

from thinkonce.web.log_lines import Probes, formatter, printable

AT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
FORGED = "x\r\n2026-01-01T00:00:00.000Z ERROR forged\x1b[2J\x85\u2028y"


def record(message: str, *arguments: object, error: Exception | None = None) -> logging.LogRecord:
    found = None if error is None else (type(error), error, None)
    return logging.LogRecord("thinkonce", logging.ERROR, "", 0, message, arguments, found)


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
    found = json.loads(formatter(who, "json").format(record))
    assert found.pop("process", "") == who
    assert found == {
        "time": "2026-01-31T23:59:59.125Z",
        "level": "warning",
        "logger": "thinkonce",
        "message": "tier 'sqlite'",
    }


def test_a_failure_keeps_its_trace_below_the_line() -> None:
    failed = record("failed", error=ValueError("why"))
    first, *rest = formatter().format(failed).splitlines()
    assert re.fullmatch(f"{AT} ERROR failed", first)
    assert rest[-1] == "  ValueError: why"
    assert json.loads(formatter(form="json").format(failed))["exception"] == "ValueError: why"


def test_nobody_can_forge_a_line() -> None:
    failed = record("said %s", FORGED, error=ValueError(FORGED))
    text = formatter().format(failed)
    assert not [line for line in text.split("\n")[1:] if not line.startswith("  ")]
    assert text.replace("\n", "").isprintable()
    line = formatter(form="json").format(failed)
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["message"] == f"said {FORGED}", "escaped, not lost"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/v1/models", "/v1/models"),
        ("a b ä 模型", "a b ä 模型"),
        ("a\nb\tc\x7f", r"a\nb\tc\x7f"),
        ("\x1b[31m\x9b", r"\x1b[31m\x9b"),
        ("\ud800\u202e", r"\ud800\u202e"),
    ],
)
def test_what_a_terminal_could_act_upon_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


PROGRAM = """
import asyncio, logging, warnings
from thinkonce.web.log_lines import log_to_stderr, write_as
log_to_stderr("info", "", "json")
logging.getLogger("thinkonce.any").info("ours")
logging.getLogger("uvicorn.error").error("the server's")
warnings.warn("a warning\\nof two lines")
async def fail():
    asyncio.get_running_loop().call_exception_handler({"message": "a callback failed"})
asyncio.run(fail())
logging.getLogger("another").info("too detailed")
write_as("text")
logging.getLogger("thinkonce").info("as text")
"""


def test_every_line_of_a_process_has_the_form_that_was_chosen() -> None:
    command = [sys.executable, "-W", "always", "-c", PROGRAM]
    told = subprocess.run(command, capture_output=True, check=True, text=True, timeout=60)
    *objects, last = told.stderr.splitlines()
    lines = [json.loads(line) for line in objects]
    assert [line["logger"] for line in lines] == [
        "thinkonce.any",
        "uvicorn.error",
        "py.warnings",
        "asyncio",
    ]
    assert "a warning\nof two lines" in lines[2]["message"]
    assert re.fullmatch(f"{AT} INFO as text", last)


def test_a_probe_is_worth_a_line_when_its_answer_changes() -> None:
    probes = Probes()
    seen = [("GET /readyz", 200), ("GET /readyz", 200), ("GET /healthz", 200), ("GET /readyz", 503)]
    seen += [("GET /readyz", 503), ("GET /readyz", 200), ("HEAD /readyz", 200)]
    news = [probes.is_news(*each) for each in seen]
    assert news == [True, False, True, True, False, True, True]


def test_whatever_is_no_probe_is_always_worth_a_line() -> None:
    probes = Probes()
    for what in ("POST /v1/chat/completions", "POST /healthz", "GET /readyz?x=1", "GET /v1/models"):
        assert probes.is_news(what, 200)
        assert probes.is_news(what, 200)
