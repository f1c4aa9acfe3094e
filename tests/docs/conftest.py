"""A real gateway with the packaged model behind it, for the pages and the examples."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

READY = "thinkonce ready on "
START_SECONDS, STOP_SECONDS = 180, 30


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address. Started once as users start it, and stopped as they stop it."""
    folder = tmp_path_factory.mktemp("served")
    command = [sys.executable, "-m", "thinkonce", "serve", "--local", "--port", "0"]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("THINKONCE_")},
        "THINKONCE_DATA_DIR": str(folder),
    }
    log = (folder / "log").open("w+", encoding="utf-8")
    server = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
    )
    try:
        yield address(server, folder / "log")
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(STOP_SECONDS)
        assert server.stdout is not None
        server.stdout.close()
        log.close()
    assert code == 0, f"SIGTERM drains and exits 0, not {code}"


def address(server: subprocess.Popen[str], log: Path) -> str:
    assert server.stdout is not None
    for line in server.stdout:
        if READY in line:
            return line.partition(READY)[2].split()[0]
    pytest.fail(f"the gateway did not start: {log.read_text(encoding='utf-8')}")


@pytest.fixture
def user_environment(served: str) -> dict[str, str]:
    """What a user's shell has: the gateway's address where the official client reads it."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("THINKONCE_")
    }
    environment["OPENAI_BASE_URL"] = f"{served}/v1"
    environment["OPENAI_API_KEY"] = "sk-any"
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment["PYTHONIOENCODING"] = "utf-8"
    return environment
