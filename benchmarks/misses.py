"""What a miss costs in the gateway, beside a bare aiohttp proxy that forwards the same requests.

Every request asks something new: the gateway reads it, makes its key, looks into memory and the
store, asks the upstream, records the answer, passes it on and writes it into the store. The proxy
reads the body, sends it on and copies the answer piece by piece. CPU time of either process comes
from the operating system; they take turns within each round. The upstream and the client (`wrk`)
share the other core.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from shutil import which
from statistics import median
from typing import Any

import psutil
from provider import provider
from record import Goal, Table, record
from servers import free_port, process, thinkonce, wait_for

from gateway import ratio

CONNECTIONS = 16
NUMBER = "0" * 24  # in a question: another one in each request
SIZES = {"0.5 KB": 500, "2 KB": 2000, "10 KB": 10_000}
CHUNKS = 50
# CPU of the gateway over that of the proxy.
JSON_GOAL, STREAM_GOAL = 1.35, 1.2
CLAIM = "A miss costs little more than forwarding it: the model's time is what one waits for."
NOTES = [
    "Requests of about 1 KB; answers of the sizes named, or 50 chunks. No request comes twice. The "
    "store is SQLite on a local disk, its write included; access logs are off.",
]
WRK = """
local head, before, after = %s, %s, %s
local count = %d
request = function()
  count = count + 1
  return head .. before .. string.format("%%024d", count) .. after
end
"""


def main(argv: list[str]) -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="few rounds; nothing is recorded")
    options.add_argument("--role", choices=("proxy",), help=argparse.SUPPRESS)
    options.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options.add_argument("--upstream", help=argparse.SUPPRESS)
    given = options.parse_args(argv)
    if given.role:
        return serve_proxy(given.port, given.upstream)
    wrk = which("wrk")
    if wrk is None:
        print("skipped: wrk is not installed")
        return 0
    rounds, seconds = (3, 1) if given.quick else (15, 3)
    with ExitStack() as stack:
        upstream = stack.enter_context(provider())
        servers = {
            "thinkonce": stack.enter_context(gateway(upstream)),
            "aiohttp": stack.enter_context(proxy(upstream)),
        }
        measured = measure(wrk, servers, rounds, seconds)
    table, goals = told(measured)
    if not given.quick:
        record("misses", CLAIM, [table], goals, NOTES, packages=["aiohttp", "uvicorn", "uvloop"])
    for row in table.rows:
        print(*row)
    for goal in goals:
        print(f"{goal.what}: {goal.measured:.2f} (wanted {goal.goal})")
    return 0


# -- what is asked ---------------------------------------------------------------------------


def asked(size: int) -> dict[str, Any]:
    """`size` 0: a stream."""
    said = "why does the cache of a language model answer sooner again " * 12
    body = {
        "model": "gpt-4o-mini",
        "messages": [
            {"role": "system", "content": "You answer briefly."},
            {"role": "user", "content": f"{said} {NUMBER}"},
        ],
        "temperature": 0.2,
        "max_tokens": size or 500,
    }
    if size:
        return body
    return body | {"stream": True, "metadata": {"chunks": str(CHUNKS), "pause": "0"}}


def script(size: int, count: int) -> str:
    body = json.dumps(asked(size))
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"
        "authorization: Bearer sk-benchmark\r\ncontent-type: application/json\r\n"
        f"accept: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    before, _, after = body.partition(NUMBER)
    return WRK % (*(lua(text) for text in (head, before, after)), count)


def lua(text: str) -> str:
    return '"' + "".join(f"\\{ord(each):03d}" for each in text) + '"'


# -- servers ---------------------------------------------------------------------------------


@contextmanager
def gateway(upstream: int) -> Iterator[tuple[int, int]]:
    with tempfile.TemporaryDirectory() as folder:
        store, environ = f"sqlite:///{folder}/answers.db", {"THINKONCE_LOG_LEVEL": "error"}
        with thinkonce(upstream, environ, store=store) as (port, pid):
            yield port, pid


@contextmanager
def proxy(upstream: int) -> Iterator[tuple[int, int]]:
    port = free_port()
    command = [sys.executable, __file__, "--role=proxy", f"--port={port}"]
    with process([*command, f"--upstream=http://127.0.0.1:{upstream}"]) as pid:
        wait_for(port)
        yield port, pid


def serve_proxy(port: int, upstream: str) -> int:
    import aiohttp
    import uvloop
    from aiohttp import web

    async def forward(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name: request.headers[name] for name in ("authorization", "content-type")}
        async with session.post(upstream + request.path, data=body, headers=headers) as answer:
            kind = {"content-type": answer.headers["content-type"]}
            if "content-length" in answer.headers:
                return web.Response(body=await answer.read(), status=answer.status, headers=kind)
            response = web.StreamResponse(status=answer.status, headers=kind)
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            return response

    async def application() -> web.Application:
        nonlocal session
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        made = web.Application()
        made.router.add_post("/{path:.*}", forward)
        return made

    session: aiohttp.ClientSession
    uvloop.install()
    web.run_app(application(), host="127.0.0.1", port=port, print=None, access_log=None)
    return 0


# -- measuring -------------------------------------------------------------------------------


def measure(
    wrk: str, servers: dict[str, tuple[int, int]], rounds: int, seconds: int
) -> dict[str, dict[str, list[float]]]:
    """Microseconds of CPU a request, by answer, server and round."""
    cases = {**SIZES, "stream of 50 chunks": 0}
    measured: dict[str, dict[str, list[float]]] = {
        case: {name: [] for name in servers} for case in cases
    }
    count = 0
    for turn in range(rounds + 1):
        for case, size in cases.items():
            for name, (port, pid) in servers.items():
                count += 1_000_000
                spent = load(wrk, port, pid, script(size, count), seconds)
                if turn:  # the first warms up
                    measured[case][name].append(spent)
    return measured


def load(wrk: str, port: int, pid: int, text: str, seconds: int) -> float:
    server = psutil.Process(pid)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ask.lua"
        path.write_text(text)
        before = server.cpu_times()
        command = [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(path)]
        url = f"http://127.0.0.1:{port}/"
        out = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
        after = server.cpu_times()
    if "Non-2xx" in out or "Socket errors" in out:
        raise SystemExit(out)
    answers = int(out.split(" requests in ")[0].split()[-1])
    return (after.user - before.user + after.system - before.system) / answers * 1e6


def told(measured: dict[str, dict[str, list[float]]]) -> tuple[Table, list[Goal]]:
    rows: list[list[str | float | int | None]] = []
    goals = []
    for case, costs in measured.items():
        times = ratio(costs["thinkonce"], costs["aiohttp"])
        ours, theirs = median(costs["thinkonce"]), median(costs["aiohttp"])
        rows.append([case, round(ours, 1), round(theirs, 1), round(times, 3)])
        goal = JSON_GOAL if case in SIZES else STREAM_GOAL
        what = f"CPU of a miss, {case}, thinkonce / aiohttp proxy"
        goals.append(Goal(what, f"<= {goal}", round(times, 3), times <= goal))
    columns = ["answer", "thinkonce", "aiohttp proxy", "ratio"]
    return Table("Misses over HTTP", columns, rows, unit="µs CPU a request"), goals


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
