"""The processes that benchmarks compare: each on the servers' core, ended when its block ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

__all__ = ("CLIENT_CORE", "free_port", "pin", "process", "thinkonce", "wait_for")

SERVER_CORE, CLIENT_CORE = 0, 1


@contextmanager
def thinkonce(
    upstream: int, environ: Mapping[str, str] | None = None, *, store: str = "memory://"
) -> Iterator[tuple[int, int]]:
    """A gateway without an access log: its port and process id."""
    port = free_port()
    command = [sys.executable, "-m", "thinkonce", "serve", "--port", str(port), "--store", store]
    command += ["--upstream", f"http://127.0.0.1:{upstream}/v1"]
    with process(command, {"THINKONCE_GATEWAY_ACCESS_LOG": "false", **(environ or {})}) as pid:
        wait_for(port)
        yield port, pid


@contextmanager
def process(command: list[str], environ: dict[str, str] | None = None) -> Iterator[int]:
    child = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | (environ or {}),
    )
    pin(child.pid, SERVER_CORE)
    try:
        yield child.pid
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def pin(pid: int, core: int) -> None:
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) > 1:
        os.sched_setaffinity(pid, {cores[core]})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"no server on port {port}")
