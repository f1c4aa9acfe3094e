"""The server as a process: it says when it is ready, drains on a signal, and ends with 0."""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from openai import OpenAI
from small_model import END, Served

from thinkonce.errors import ConfigError
from thinkonce.kv.serving.server import run
from thinkonce.web.listener import bind

CODE = """
import sys
from thinkonce.kv.serving.server import run
sys.exit(run(sys.argv[1], port=0, threads=1, access_log=True))
"""


@pytest.fixture
def process(model_folder: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", CODE, str(model_folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM to send there")
def test_a_stop_signal_lets_the_running_answer_finish(process: subprocess.Popen[str]) -> None:
    assert process.stdout
    assert process.stderr
    line = process.stdout.readline().strip()
    assert line.startswith("thinkonce model ready on http://127.0.0.1:")
    url = line.rsplit(" ", 1)[1]
    with OpenAI(base_url=url, api_key="none", max_retries=0, timeout=60) as client:
        stream = client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": "secret words"}],
            max_tokens=300,
            logit_bias={str(END): -100},
            stream=True,
            stream_options={"include_usage": True},
        )
        next(stream)
        process.send_signal(signal.SIGTERM)
        chunks = list(stream)
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens == 300
    assert process.wait(30) == 0
    assert process.stdout.read().splitlines() == [
        "draining: 1 answer under way, up to 30 s; again to stop at once",
        "stopped: no answer was cut off",
    ]
    log = process.stderr.read()
    assert "POST /chat/completions 200" in log
    assert "secret" not in log, "prompts are not logged"


def test_probes_that_are_answered_as_before_have_a_line_for_debugging_only(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "thinkonce.kv.access")
    with httpx.Client(base_url=served.url) as client:
        for path in ("/readyz", "/readyz", "/v1/models", "/v1/models", "/healthz"):
            client.get(path).raise_for_status()
    lines = [(each.levelname, each.getMessage().split()[1]) for each in caplog.records]
    expected = ["/readyz", "/v1/models", "/v1/models"]
    assert [path for level, path in lines if level == "INFO"][:3] == expected
    assert ("DEBUG", "/readyz") in lines


def test_a_port_in_use_is_named_before_the_model_is_loaded() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port={port}"):
            run("no-such-model", port=port)


@pytest.mark.parametrize(
    ("host", "port", "named"),
    [("no.such.host.invalid", 0, "--host"), ("127.0.0.1", 70_000, "--port")],
)
def test_an_address_that_cannot_work_is_named(host: str, port: int, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        bind(host, port).close()
    assert caught.value.setting == named


@pytest.mark.parametrize("option", ["threads", "max_waiting", "drain_seconds"])
def test_a_number_that_cannot_work_is_named(option: str) -> None:
    with pytest.raises(ConfigError, match=f"{option}=-1"):
        run("no-such-model", **{option: -1})  # type: ignore[arg-type]


def test_a_stop_signal_while_the_model_loads_ends_the_server_at_once(model_folder: Path) -> None:
    heard: list[str] = []

    def stop(what: str, fraction: float | None) -> None:
        heard.append(what)
        signal.raise_signal(signal.SIGTERM)

    assert run(str(model_folder), port=0, progress=stop, say=heard.append) == 0
    assert heard == ["loading tiny", "stopped before it was ready"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, "the handler is put back"


def test_an_unknown_model_frees_the_port_again(port: int) -> None:
    for _ in range(2):
        with pytest.raises(ConfigError, match="no-such-model"):
            run("no-such-model", port=port)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM to send there")
def test_a_log_that_nobody_reads_stops_no_answer_and_no_end(
    model_folder: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "thinkonce", "serve-model", str(model_folder), "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    ) as process:
        try:
            assert process.stdout
            url = process.stdout.readline().strip().rsplit(" ", 1)[1]
            with httpx.Client(base_url=url, timeout=30) as client:
                for _ in range(100):  # more than any pipe holds
                    assert client.get(f"/{'x' * 4000}").status_code == 404
                body = {"prompt": "Hi", "max_tokens": 2}
                assert client.post("/v1/completions", json=body).status_code == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()
