"""What the transports load, and what they say where their library is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOADED = """
import sys
import thinkonce.httpx2
heavy = {"aiohttp", "uvicorn", "httptools", "prometheus_client", "typer", "rich", "torch"}
print(sorted(heavy & {module.split(".")[0] for module in sys.modules}))
"""
MISSING = """
import sys
from importlib import import_module

for name in ["httpx", "httpx2"]:
    sys.modules[name] = None
    try:
        import_module("thinkonce." + name)
    except ImportError as error:
        print(error)
"""
FORKED = """
import os, sys
import httpx2
from thinkonce.httpx2 import CachingTransport

class Echo(httpx2.BaseTransport):
    def handle_request(self, request):
        choice = {"index": 0, "finish_reason": "stop", "message": {"content": "hello"}}
        body = {"id": "1", "object": "chat.completion", "model": "m", "choices": [choice]}
        return httpx2.Response(200, json=body)

client = httpx2.Client(transport=CachingTransport(Echo()))
ask = lambda text: client.post("http://x/v1/chat/completions", json={
    "model": "m", "messages": [{"role": "user", "content": text}]}).headers["x-cache"]
assert [ask("a"), ask("a")] == ["MISS", "HIT"]
child = os.fork()
if not child:
    os._exit(0 if [ask("a"), ask("b"), ask("b")] == ["HIT", "MISS", "HIT"] else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), ask("a"))
"""


def run(script: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_transport_loads_no_server() -> None:
    done = run(LOADED)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_a_missing_library_is_named_with_what_installs_it() -> None:
    done = run(MISSING)
    said = done.stdout.splitlines()
    assert len(said) == 2, done.stderr
    for name, line in zip(["httpx", "httpx2"], said, strict=True):
        assert line.endswith(f"pip install '/path/to/thinkonce[{name}]'")


@pytest.mark.skipif(not hasattr(sys.modules["os"], "fork"), reason="nothing forks here")
def test_a_forked_child_goes_on_with_the_same_client() -> None:
    done = run(FORKED)
    assert (done.returncode, done.stdout) == (0, "0 HIT\n"), done.stderr
