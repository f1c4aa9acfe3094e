"""An exact hit of LiteLLM's proxy with its memory cache, beside one of this gateway.

LiteLLM lives in an environment of its own (`make bench-tools` makes it under `.venv/litellm`);
where that is absent, this says so. Both have one worker, answer the same question again and again
and are checked to have done so from their caches. CPU time of the servers' processes, children
included, comes from the operating system.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
import psutil
from provider import provider
from record import Goal, Table, record
from servers import free_port, process, thinkonce, wait_for

GOAL = 300.0
CONNECTIONS = 8
START_SECONDS = 120
PYTHON = Path(os.environ.get("BENCH_LITELLM_PYTHON", ".venv/litellm/bin/python"))
CLAIM = "A hit costs a few hundredths of a percent to a third of one of what LiteLLM's proxy takes."
NOTES = [
    "LiteLLM proxy with `cache: true`, type local, one worker, without a database and its logs; "
    "one request of about 0.2 KB answered again and again from memory over kept-alive connections.",
]
CONFIG = """
model_list:
  - model_name: gpt-4o-mini
    litellm_params:
      model: openai/gpt-4o-mini
      api_base: http://127.0.0.1:{upstream}/v1
      api_key: sk-benchmark
litellm_settings:
  cache: true
  cache_params: {{type: local}}
  telemetry: false
"""


def main(argv: list[str]) -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="few rounds; nothing is recorded")
    given = options.parse_args(argv)
    if not PYTHON.exists():
        print(f"skipped: {PYTHON} is not there; `make bench-tools` installs LiteLLM")
        return 0
    rounds, seconds = (2, 2.0) if given.quick else (10, 5.0)
    with ExitStack() as stack:
        upstream = stack.enter_context(provider())
        servers = {
            "thinkonce": stack.enter_context(thinkonce(upstream)),
            "LiteLLM proxy": stack.enter_context(litellm(upstream)),
        }
        measured = asyncio.run(measure(servers, rounds, seconds))
    table, goal = told(measured)
    if not given.quick:
        version = subprocess.run(
            [PYTHON, "-c", "from importlib.metadata import version; print(version('litellm'))"],
            capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        notes = [*NOTES, f"LiteLLM {version}."]
        record("litellm_proxy", CLAIM, [table], [goal], notes, packages=["uvicorn", "uvloop"])
    for row in table.rows:
        print(*row)
    print(f"{goal.what}: {goal.measured:.0f} (wanted {goal.goal})")
    return 0


# -- servers ---------------------------------------------------------------------------------


@contextmanager
def litellm(upstream: int) -> Iterator[tuple[int, int]]:
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(CONFIG.format(upstream=upstream), encoding="utf-8")
        command = [str(PYTHON.with_name("litellm")), "--config", str(config), "--port", str(port)]
        command += ["--host", "127.0.0.1", "--num_workers", "1"]
        environ = {"LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR", "PYTHONPATH": ""}
        environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_DOCS": "True"}
        # Loopback only, and without a database: the proxy asks nobody for a key.
        environ["LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY"] = "true"
        with process(command, environ) as pid:
            wait_for(port, START_SECONDS)
            yield port, pid


# -- measuring -------------------------------------------------------------------------------


async def measure(
    servers: dict[str, tuple[int, int]], rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Microseconds of CPU a hit, by server and round."""
    measured: dict[str, list[float]] = {name: [] for name in servers}
    async with aiohttp.ClientSession() as session:
        for name, (port, _) in servers.items():
            await warm(session, port, name)
        for _ in range(rounds):
            for name, (port, pid) in servers.items():
                before, answers = cpu_of(pid), await load(session, port, seconds)
                measured[name].append((cpu_of(pid) - before) / answers * 1e6)
    return measured


async def warm(session: aiohttp.ClientSession, port: int, name: str) -> None:
    """Ask until the answer comes from the cache, which its headers tell."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        _, headers = await ask(session, port)
        if headers.get("x-cache") == "HIT" or "x-litellm-cache-key" in headers:
            return
        await asyncio.sleep(0.1)
    raise SystemExit(f"{name} never answered from its cache")


async def load(session: aiohttp.ClientSession, port: int, seconds: float) -> int:
    until, answers = time.monotonic() + seconds, 0

    async def one() -> None:
        nonlocal answers
        while time.monotonic() < until:
            status, _ = await ask(session, port)
            if status != 200:
                raise SystemExit(f"port {port} answered {status}")
            answers += 1

    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))
    return answers


async def ask(session: aiohttp.ClientSession, port: int) -> tuple[int, Any]:
    body = {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "why is the sky blue, in one sentence?"}],
        "temperature": 0.2,
    }
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    headers = {"authorization": "Bearer sk-benchmark", "content-type": "application/json"}
    async with session.post(url, data=json.dumps(body).encode(), headers=headers) as answer:
        await answer.read()
        return answer.status, answer.headers


def cpu_of(pid: int) -> float:
    top = psutil.Process(pid)
    times = [each.cpu_times() for each in (top, *top.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def told(measured: dict[str, list[float]]) -> tuple[Table, Goal]:
    rows: list[list[str | float | int | None]] = [
        [name, round(median(costs), 1), round(min(costs), 1)] for name, costs in measured.items()
    ]
    times = median(measured["LiteLLM proxy"]) / median(measured["thinkonce"])
    table = Table(
        "Exact hits", ["server", "µs CPU a hit", "best round"], rows, unit="µs",
        chart="µs CPU a hit", log=True,
    )  # fmt: skip
    what = "CPU of a hit, LiteLLM proxy / thinkonce"
    return table, Goal(what, f">= {GOAL:.0f}", round(times, 1), times >= GOAL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
