"""The access log's lines: what they hold, and when."""

from __future__ import annotations

import json
from io import StringIO

import pytest

from gateway.conftest import CHAT, Stage
from thinkonce.gateway.access_log import FLUSH_LINES, AccessLog, Told


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


@pytest.mark.parametrize(("every", "lines"), [(False, 2), (True, 4)])
async def test_probes_that_are_answered_as_before_have_no_line_unless_all_are_wanted(
    every: bool, lines: int
) -> None:
    out = StringIO()
    log = AccessLog(out, every_probe=every)
    for status in (200, 200, 200, 503):
        log.write("i", "GET /readyz", status, "", "", 0.0)
    log.flush()
    assert out.getvalue().count("\n") == lines


async def test_a_json_line_has_names_and_leaves_out_what_is_not_known() -> None:
    out = StringIO()
    log = AccessLog(out, as_json=True, wall=Clock(0.0))
    told = Told("chat/completions", "gpt-4o", "0123456789abcdef", "exact", "memory", 18)
    log.write("id-1", "POST /v1/chat/completions", 200, "hit", "", 0.01234, "", told)
    log.write("id-2", "GET /healthz", 200, "", "", 0.0)
    log.write("id-3", "-", 400, "", "invalid_http", 0.0, "error")
    log.flush()
    first, second, third = map(json.loads, out.getvalue().splitlines())
    head = {"time": "1970-01-01T00:00:00.000Z", "level": "info", "logger": "thinkonce.access"}
    assert first == head | {
        "request_id": "id-1",
        "method": "POST",
        "path": "/v1/chat/completions",
        "status": 200,
        "outcome": "hit",
        "ms": 12.3,
        "endpoint": "chat/completions",
        "model": "gpt-4o",
        "tenant": "0123456789ab",
        "match": "exact",
        "tier": "memory",
        "tokens_saved": 18,
    }
    assert second == head | {
        "request_id": "id-2",
        "method": "GET",
        "path": "/healthz",
        "status": 200,
        "ms": 0.0,
        "tokens_saved": 0,
    }
    assert third["not_stored"] == "error"
    assert "path" not in third


@pytest.mark.parametrize("way", ["lane", "asgi", "flow"])
async def test_the_log_of_a_gateway_says_who_asked_what_and_what_became_of_it(
    stage: Stage, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway = await stage.gateway(gateway={"access_log": True}, log={"format": "json"})
    for _ in range(2):
        await gateway.chat(headers={"authorization": "Bearer sk-secret"})
    await gateway.chat("other", headers={"x-request-id": "mine"}, stream=True, max_tokens=3)
    await gateway.get("/v1/models%0a%1b%5B2Jforged")
    gateway.assembly.access_log.flush()
    written = capsys.readouterr().err
    assert "sk-secret" not in written
    miss, hit, stream, odd = map(json.loads, written.splitlines())
    assert (miss["outcome"], miss["reason"], miss["model"]) == ("miss", "new", "priced")
    assert (hit["outcome"], hit["match"], hit["tier"]) == ("hit", "exact", "memory")
    assert (miss["tokens_saved"], hit["tokens_saved"]) == (0, 18)
    assert len(hit["tenant"]) == 12
    assert miss["tenant"] == hit["tenant"] != stream["tenant"]
    assert (hit["endpoint"], hit["path"]) == ("chat/completions", CHAT)
    assert stream["request_id"] == "mine"
    assert (odd["status"], odd["path"]) == (200, "/v1/models%0A%1B%5B2Jforged")


class Behind(StringIO):
    """A pipe that does not block, and is full at first."""

    full = True

    def write(self, text: str) -> int:
        if self.full:
            raise BlockingIOError
        return super().write(text)


async def test_a_reader_that_is_behind_ends_no_log() -> None:
    out = Behind()
    log = AccessLog(out)
    for name in ("lost", "later"):
        log.write(name, "GET /", 200, "", "", 0.0)
        log.flush()
        out.full = False
    assert log.enabled
    assert [line.split()[1] for line in out.getvalue().splitlines()] == ["later"]
