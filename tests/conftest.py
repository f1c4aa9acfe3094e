"""What every test stands on: its own data folder, a free port, and nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import os
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import certifi
import psutil
import pytest
from hypothesis import HealthCheck, settings

# Deadlines measure the machine, not the code; in CI the examples are the same every time.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")

# How long a thread that was told to end may take to do so.
GRACE_SECONDS = 5.0


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors: a worker often waits for processes that a test began."""
    return (os.cpu_count() or 1) + 1


def free_port() -> int:
    """A port of 127.0.0.1 nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture(scope="session", autouse=True)
def one_certificate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Clients read every certificate they may trust when they are made, 40 ms each time.

    Here most speak plain HTTP, and tests of TLS bring certificates of their own.
    """
    whole = Path(certifi.where()).read_text(encoding="utf-8")
    first, end, _ = whole.partition("-----END CERTIFICATE-----\n")
    file = tmp_path_factory.mktemp("trusted") / "one.pem"
    file.write_text(first + end, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(file))
        yield


@pytest.fixture(autouse=True)
def own_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings of the person who runs the tests do not reach them."""
    for name in [name for name in os.environ if name.startswith("THINKONCE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("THINKONCE_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """What a gateway in this process sets for its log ends with the test."""
    loggers = [logging.getLogger(name) for name in ("", "thinkonce", "uvicorn", "asyncio")]
    before = [(each.level, list(each.handlers), each.propagate) for each in loggers]
    yield
    for each, (level, handlers, propagate) in zip(loggers, before, strict=True):
        each.setLevel(level)
        each.handlers[:], each.propagate = handlers, propagate


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves a thread, a child process or a socket of its own behind.

    Fixtures of wider scope keep what they held before the test began.
    """
    threads, sockets, children = set(threading.enumerate()), open_sockets(), child_ids()
    yield
    for thread in set(threading.enumerate()) - threads:
        if not thread.daemon or thread.name.startswith("thinkonce"):
            thread.join(GRACE_SECONDS)
            assert not thread.is_alive(), f"{thread!r} was left running"
    if open_sockets() - sockets:
        gc.collect()  # a closed loop frees its own pair when collected
    assert not (left := open_sockets() - sockets), f"sockets were left open: {left}"
    assert not (left_ids := child_ids() - children), f"processes were left running: {left_ids}"


def open_sockets() -> set[tuple[int, object]]:
    """Network sockets that this process listens on or is connected by."""
    return {
        (connection.fd, connection.laddr)
        for connection in psutil.Process().net_connections("inet")
        if connection.status in (psutil.CONN_LISTEN, psutil.CONN_ESTABLISHED)
    }


def child_ids() -> set[int]:
    if not has_children():  # to list them, every process of the machine is looked at
        return set()
    return {child.pid for child in psutil.Process().children() if is_running(child)}


def has_children() -> bool:
    """Running or not yet waited for; True where the system cannot be asked."""
    if not hasattr(os, "waitid"):
        return True
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def is_running(child: psutil.Process) -> bool:
    try:
        return child.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def pytest_collection_finish() -> None:
    """Going through all that was imported takes `gc.collect` the better part of a second.

    It stays to the end, so no test's own need look at it.
    """
    gc.collect()
    gc.freeze()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Coroutine tests ask for `no_task_left` before their own fixtures, so that it looks last.

    The loop is begun for it, hence after `nothing_left_behind`, and has ended when that looks.
    """
    if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.function):
        names = item.fixturenames
        if "no_task_left" not in names:
            names.insert(names.index("nothing_left_behind") + 1, "no_task_left")


@pytest.fixture
async def no_task_left() -> AsyncIterator[None]:
    """Fail a coroutine test that leaves a task on its loop once its fixtures are torn down."""
    yield
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        _, left = await asyncio.wait(others, timeout=GRACE_SECONDS)
        assert not left, f"tasks were left running: {left}"
