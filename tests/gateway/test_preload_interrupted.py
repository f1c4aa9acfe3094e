"""`thinkonce preload`, interrupted with a request under way: a real process, a real signal."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from gateway.conftest import Running, Stage
from gateway.upstream import Out as ScriptOut
from gateway.upstream import Seen, answer
from thinkonce.cli import main

BOUND = 60  # seconds; a command that sleeps through the interrupt waits for an hour

# Whoever starts the tests in the background may have had interrupts ignored for all children.
COMMAND = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
{before}
from thinkonce.cli import main
sys.exit(main(sys.argv[1:]))
"""
# The signal goes to another thread, so that it breaks off no call of this one: what happens by
# chance where it comes just before the call begins.
SLEPT_THROUGH = """
import threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
"""

moments = pytest.mark.parametrize(
    "before", ["", SLEPT_THROUGH], ids=["while it waits", "as it begins to wait"]
)


@asynccontextmanager
async def preloading(before: str, *arguments: str) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", COMMAND.format(before=before), "preload", *arguments),
        stdout=PIPE,
        stderr=PIPE,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def interrupted(process: Process) -> tuple[int | None, str, str]:
    process.send_signal(signal.SIGINT)
    out, err = await asyncio.wait_for(process.communicate(), BOUND)
    return process.returncode, out.decode(), err.decode()


@pytest.fixture
def batch(tmp_path: Path) -> Path:
    def line(number: int) -> str:
        body = {"model": "priced", "messages": [{"role": "user", "content": str(number)}]}
        asked = {"method": "POST", "url": "/v1/chat/completions", "body": body}
        return json.dumps({"custom_id": f"q{number}", **asked})

    file = tmp_path / "faq.jsonl"
    file.write_text("".join(line(number) + "\n" for number in range(30)), encoding="utf-8")
    return file


@moments
async def test_an_interrupt_keeps_what_is_done_and_the_same_command_goes_on(
    gateway: Running, stage: Stage, batch: Path, capsys: pytest.CaptureFixture[str], before: str
) -> None:
    stuck = asyncio.Event()

    async def script(seen: Seen, out: ScriptOut) -> None:
        if stage.upstream.calls == 3:
            stuck.set()
            await asyncio.Event().wait()
        await answer(seen, out)

    stage.upstream.script = script
    arguments = (str(batch), "--url", gateway.url, "--tenant", "anonymous")
    async with preloading(before, *arguments, "--concurrency", "1") as process:
        await asyncio.wait_for(stuck.wait(), BOUND)
        code, out, err = await interrupted(process)
    assert (code, "Traceback" in err) == (1, False), err
    assert f"stopped; the same command goes on with {batch}" in err
    # What it had been told of by then; results may be on their way.
    told = ("2 lines: 2 stored", "1 line: 1 stored", "0 lines: 0 stored")
    assert out.startswith(told), out
    await asyncio.wait_for(stage.upstream.left(), BOUND)  # nobody waits for the third any more

    stage.upstream.script = answer
    again = asyncio.to_thread(main, ["preload", *arguments])
    assert await asyncio.wait_for(again, BOUND) == 0
    assert "28 stored, 2 there already" in capsys.readouterr().out
    asked = [seen.json["messages"][0]["content"] for seen in stage.upstream.seen]
    assert sorted(map(int, asked)) == sorted([2, *range(30)]), "the third twice, no other"


async def test_an_interrupt_ends_the_wait_for_a_server_that_never_answers(batch: Path) -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        async with preloading(SLEPT_THROUGH, str(batch), "--url", url, "--tenant", "x") as process:
            accepted, _ = await asyncio.wait_for(loop.sock_accept(server), BOUND)
            with accepted:
                accepted.setblocking(False)
                assert await asyncio.wait_for(loop.sock_recv(accepted, 100), BOUND)
                code, out, err = await interrupted(process)
    assert (code, out) == (1, "0 lines: 0 stored, 0 there already, 0 failed\n"), err
    assert err == f"stopped; the same command goes on with {batch}\n"
