"""What an exact hit of the gateway costs, beside nginx with a file and a bare uvicorn app.

Every server runs in a process of its own on one core, the client on another. Distinct questions
are asked over 16 kept-alive connections; each is a hit, in the fast lane or, with the lane off, in
plain ASGI. CPU time of the servers' processes comes from the operating system; the servers take
turns within each round. The client is `wrk` where it is installed, else one in Python, which may
not keep a server busy.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from record import Goal, Table, record
from servers import CLIENT_CORE, free_port, pin, process, thinkonce, wait_for

CONNECTIONS = 16
FRESH_EACH = 500_000  # more than one round of requests
DISTINCT = 1000
# Requests per CPU second, nginx with a file = 1.
GOALS = {
    "fast lane": 0.65,
    "fast lane, one question again and again": 0.85,
    "plain ASGI": 0.30,
}
STREAM_GOAL = 3.5  # a recorded stream handed out, against an application that sends its chunks
WORDS = ("why", "does", "the", "cache", "of", "a", "language", "model", "answer", "sooner", "again")
CLAIM = "An exact hit over HTTP costs a few times what nginx needs for a file of the same size."
NOTES = [
    "nginx answers GET with a file of the same size, the others POST with a body of about 1 KB; "
    "the gateway finds out what is asked, finds the entry, gives it a fresh id, time and marks.",
    "Distinct questions have each been asked before, byte for byte; the row `bytes never seen` has "
    "the same questions with whitespace that differs each time, so that each is parsed and keyed.",
    "Streams: the gateway sends a recorded answer of 50 chunks joined; the bare app sends the "
    "same chunks one by one.",
    "Access logs are off, in nginx too; one row has the gateway's on.",
]


def main(argv: list[str]) -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="few rounds; nothing is recorded")
    options.add_argument("--role", choices=("bare", "upstream"), help=argparse.SUPPRESS)
    options.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options.add_argument("--size", type=int, default=0, help=argparse.SUPPRESS)
    given = options.parse_args(argv)
    if given.role:
        return serve(given.role, given.port, given.size)
    rounds, seconds = (5, 1) if given.quick else (15, 2)
    with ExitStack() as stack:
        cases = start_all(stack)
        pin(os.getpid(), CLIENT_CORE)
        measured = measure(cases, rounds, seconds)
    table, goals = told(measured)
    if not given.quick:
        packages = ["uvicorn", "uvloop", "httptools", "msgspec"]
        record("gateway", CLAIM, [table], goals, NOTES, packages=packages)
    for row in table.rows:
        print(*row)
    for goal in goals:
        print(f"{goal.what}: {goal.measured:.2f} (wanted {goal.goal})")
    return 0


# -- requests and answers --------------------------------------------------------------------


# Whitespace of JSON: blanks and tabs in it tell requests apart that ask the same.
BLANK = b" " * 24
TABS_FOR_DIGITS = bytes.maketrans(b"01", b" \t")


def with_number(request: bytes, number: int) -> bytes:
    """`request` in bytes that no other number gives."""
    digits = b"%b" % format(number, "024b").encode()
    return request.replace(BLANK, digits.translate(TABS_FOR_DIGITS), 1)


def question(n: int, *, stream: bool = False) -> bytes:
    """A request of about 1 KB, another one for each `n`."""
    said = " ".join(WORDS[(n * 7 + at) % len(WORDS)] for at in range(120))
    body = {
        "model": "gpt-4o-mini",
        "messages": [
            {"role": "system", "content": "You answer briefly."},
            {"role": "user", "content": f"question {n}: {said}"},
        ],
        "temperature": 0.2,
        "max_tokens": 512,
    }
    raw = json.dumps(body | ({"stream": True} if stream else {})).encode()
    raw = b"{" + BLANK + raw[1:]
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"
        "authorization: Bearer sk-benchmark\r\ncontent-type: application/json\r\n"
        "accept: application/json\r\nuser-agent: OpenAI/Python 2.0\r\n"
        f"x-stainless-lang: python\r\ncontent-length: {len(raw)}\r\n\r\n"
    )
    return head.encode() + raw


GET = b"GET /answer.json HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"


def completion() -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "gpt-4o-mini",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "an answer " * 140},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 150, "completion_tokens": 300, "total_tokens": 450},
    }


def events() -> list[bytes]:
    """A stream of 50 chunks and its end mark."""
    base = {k: v for k, v in completion().items() if k not in ("choices", "usage")}
    base["object"] = "chat.completion.chunk"
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": "an answer " * 3}] * 48 + [{}]
    made = []
    for at, delta in enumerate(deltas):
        finish = "stop" if at == len(deltas) - 1 else None
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        made.append(b"data: " + json.dumps(base | {"choices": [choice]}).encode() + b"\n\n")
    return [*made, b"data: [DONE]\n\n"]


# Their settings under [gateway].
GATEWAYS: dict[str, dict[str, str]] = {
    "fast lane": {},
    "fast lane, access log on": {"ACCESS_LOG": "true"},
    "plain ASGI": {"FAST_LANE": "false"},
}

# -- servers ----------------------------------------------------------------------------------


def serve(role: str, port: int, size: int) -> int:
    import uvicorn

    whole = b"x" * size if role == "bare" else json.dumps(completion()).encode()
    pieces = events()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message["body"]
            if not message["more_body"]:
                break
        stream = b'"stream": true' in body
        kind = b"text/event-stream" if stream else b"application/json"
        headers = [(b"content-type", kind)]
        if not stream:
            headers.append((b"content-length", b"%d" % len(whole)))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if stream:
            for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"" if stream else whole})

    config = uvicorn.Config(
        app, port=port, http="httptools", lifespan="off", ws="none", log_config=None,
        access_log=False, server_header=False, proxy_headers=False,
    )  # fmt: skip
    uvicorn.Server(config).run()
    return 0


class Case:
    """A server, what it is asked, and which of its processes count."""

    def __init__(
        self, name: str, port: int, pids: list[int], requests: list[bytes], *, fresh: bool = False
    ) -> None:
        self.name, self.port, self.requests = name, port, requests
        self.fresh = fresh  # other whitespace in each request
        self.asked = 0  # numbers used up for that
        self._processes = [psutil.Process(pid) for pid in pids]

    def cpu_seconds(self) -> float:
        times = [process.cpu_times() for process in self._processes]
        return sum(time.user + time.system for time in times)


def start_all(stack: ExitStack) -> list[Case]:
    upstream = free_port()
    stack.enter_context(
        process([sys.executable, __file__, "--role=upstream", f"--port={upstream}"])
    )
    wait_for(upstream)
    asked = [question(n) for n in range(DISTINCT)]
    streams = [question(n + DISTINCT, stream=True) for n in range(DISTINCT)]
    cases = []
    size = 0
    for name, settings in GATEWAYS.items():
        environ = {f"THINKONCE_GATEWAY_{key}": value for key, value in settings.items()}
        environ["THINKONCE_CACHE_JITTER"] = "0"
        port, pid = stack.enter_context(thinkonce(upstream, environ))
        asyncio.run(warm(port, asked * 2))  # the first hit of an entry makes it ready for others
        size = asyncio.run(warm(port, asked[:1]))
        cases.append(Case(name, port, [pid], asked))
        if settings.get("ACCESS_LOG") == "true":
            continue
        cases.append(Case(f"{name}, one question again and again", port, [pid], asked[:1]))
        cases.append(Case(f"{name}, bytes never seen", port, [pid], asked, fresh=True))
        asyncio.run(warm(port, streams * 2))
        cases.append(Case(f"{name}, streams", port, [pid], streams))
    port = free_port()
    bare = [sys.executable, __file__, "--role=bare", f"--port={port}", f"--size={size}"]
    pid = stack.enter_context(process(bare))
    wait_for(port)
    cases.append(Case("uvicorn, constant body", port, [pid], asked))
    cases.append(Case("uvicorn, streams chunk by chunk", port, [pid], streams))
    cases += nginx_case(stack, size)
    return cases


def nginx_case(stack: ExitStack, size: int) -> list[Case]:
    path = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if path is None:
        print("skipped: nginx is not installed")
        return []
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    port = free_port()
    (folder / "answer.json").write_bytes(b"x" * size)
    (folder / "nginx.conf").write_text(
        f"""worker_processes 1; daemon off; master_process off; pid {folder}/pid;
        error_log {folder}/error; events {{ worker_connections 256; }}
        http {{ access_log off; keepalive_requests 1000000000; default_type application/json;
        client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
        uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
        server {{ listen 127.0.0.1:{port}; root {folder}; }} }}"""
    )
    pid = stack.enter_context(process([path, "-p", str(folder), "-c", str(folder / "nginx.conf")]))
    wait_for(port)
    return [Case("nginx, a file", port, [pid], [GET])]


# -- the client --------------------------------------------------------------------------------


class Asker(asyncio.Protocol):
    """One connection that asks again as soon as it has its answer."""

    def __init__(self, requests: list[bytes], at: int, step: int) -> None:
        self._requests, self._at, self._step = requests, at, step
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self.answered, self.last_size, self.stopping = 0, 0, False
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        size = whole(self._buffer)
        if size < 0:
            return
        if not self._buffer.startswith(b"HTTP/1.1 200"):
            raise SystemExit(self._buffer[:300].decode("latin-1"))
        self.answered, self.last_size, self._buffer = self.answered + 1, size, b""
        if self.stopping:
            assert self._transport is not None
            self._transport.close()
        else:
            self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def _ask(self) -> None:
        assert self._transport is not None
        self._transport.write(self._requests[self._at % len(self._requests)])
        self._at += self._step


def whole(buffer: bytes) -> int:
    """The size of the body if the answer in `buffer` is complete, else -1."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return -1
    at = buffer.lower().find(b"content-length: ", 0, end)
    if at < 0:
        return len(buffer) - end - 4 if buffer.endswith(b"0\r\n\r\n") else -1
    length = int(buffer[at + 16 : buffer.index(b"\r\n", at)])
    return length if len(buffer) >= end + 4 + length else -1


async def connections(case_port: int, requests: list[bytes], count: int) -> list[Asker]:
    loop = asyncio.get_running_loop()
    askers = []
    for at in range(min(count, max(len(requests), count))):
        _, asker = await loop.create_connection(
            lambda at=at: Asker(requests, at, count), "127.0.0.1", case_port
        )
        askers.append(asker)
    return askers


async def warm(port: int, requests: list[bytes]) -> int:
    """Ask every question once; the size of the last answer's body."""
    (asker,) = await connections(port, requests, 1)
    while asker.answered < len(requests) + 1:
        await asyncio.sleep(0.01)
    asker.stopping = True
    await asker.done
    return asker.last_size


def load(case: Case, seconds: int) -> tuple[int, float]:
    """Answers in about `seconds`, and the server's CPU seconds for them."""
    before = case.cpu_seconds()
    wrk = shutil.which("wrk")
    answers = asyncio.run(own_load(case, seconds)) if wrk is None else wrk_load(wrk, case, seconds)
    return answers, case.cpu_seconds() - before


WRK = r"""
local requests, at = {}, 0
for line in io.lines("%s") do
  local head, body = line:match("^(.-)\t(.*)$")
  requests[#requests + 1] = head:gsub("|", "\r\n") .. body
end
local fresh, blank, count = %s, string.rep(" ", 24), %d
request = function()
  at = at %% #requests + 1
  if not fresh then return requests[at] end
  count = count + 1
  local bits, rest = {}, count
  for place = 1, 24 do
    bits[place] = rest %% 2 == 1 and "\t" or " "
    rest = math.floor(rest / 2)
  end
  local from, to = requests[at]:find(blank, 1, true)
  return requests[at]:sub(1, from - 1) .. table.concat(bits) .. requests[at]:sub(to + 1)
end
"""


def wrk_load(wrk: str, case: Case, seconds: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / "requests"
        lines.write_bytes(b"\n".join(map(one_line, case.requests)) + b"\n")
        script = Path(folder) / "ask.lua"
        case.asked += FRESH_EACH if case.fresh else 0
        script.write_text(WRK % (lines, str(case.fresh).lower(), case.asked))
        command = [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(script)]
        url = f"http://127.0.0.1:{case.port}/"
        out = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in out or "Socket errors" in out:
        raise SystemExit(f"{case.name}: {out}")
    return int(out.split(" requests in ")[0].split()[-1])


def one_line(request: bytes) -> bytes:
    head, _, body = request.partition(b"\r\n\r\n")
    return head.replace(b"\r\n", b"|") + b"||\t" + body


async def own_load(case: Case, seconds: int) -> int:
    requests = case.requests
    if case.fresh:  # a bounded stock: this client is too slow to use it up
        requests = [
            with_number(request, case.asked + turn * len(requests) + at)
            for turn in range(50)
            for at, request in enumerate(requests)
        ]
        case.asked += len(requests)
    askers = await connections(case.port, requests, CONNECTIONS)
    await asyncio.sleep(seconds)
    for asker in askers:
        asker.stopping = True
    await asyncio.gather(*(asker.done for asker in askers))
    return sum(asker.answered for asker in askers)


def measure(cases: list[Case], rounds: int, seconds: int) -> dict[str, list[float]]:
    """Microseconds of CPU a request, per case and round."""
    measured: dict[str, list[float]] = {case.name: [] for case in cases}
    for _ in range(rounds):
        for case in cases:
            answers, cpu = load(case, seconds)
            measured[case.name].append(cpu / answers * 1e6)
    return measured


# -- what it comes to -----------------------------------------------------------------------------


def told(measured: dict[str, list[float]]) -> tuple[Table, list[Goal]]:
    rows: list[list[str | float | int | None]] = []
    nginx = measured.get("nginx, a file")
    for name, costs in measured.items():
        share = None if nginx is None else round(ratio(nginx, costs), 3)
        rows.append([name, round(median(costs), 1), round(min(costs), 1), share])
    columns = ["server", "µs CPU a request", "best round", "requests per CPU second, nginx = 1"]
    table = Table("Exact hits over HTTP", columns, rows, unit="µs", chart="µs CPU a request")
    goals = []
    for name, goal in GOALS.items() if nginx is not None else ():
        got = ratio(nginx, measured[name])
        what = f"requests per CPU second, {name} / nginx"
        goals.append(Goal(what, f">= {goal}", round(got, 3), got >= goal))
    got = ratio(measured["uvicorn, streams chunk by chunk"], measured["fast lane, streams"])
    what = "a recorded stream against plain ASGI chunk by chunk"
    goals.append(Goal(what, f">= {STREAM_GOAL}", round(got, 2), got >= STREAM_GOAL))
    return table, goals


def ratio(one: list[float], other: list[float]) -> float:
    """The median over rounds: both were measured within each of them."""
    return median(a / b for a, b in zip(one, other, strict=True))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
