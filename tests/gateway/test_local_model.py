"""The model behind the gateway, killed and brought back: real processes, real signals."""

from __future__ import annotations

import asyncio
import hashlib
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import psutil
import pytest

from gateway.test_processes import Host, Process
from gateway.test_workers import crew
from gateway.upstream import Upstream
from kv.small_model import make_network, make_tokenizer
from thinkonce.errors import ConfigError
from thinkonce.gateway.local import LocalModel, local_model
from thinkonce.settings import Kv, Settings, Sources

READY = "print('model ready on http://127.0.0.1:9', flush=True)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {READY}; signal.pause()"


def running(code: str) -> list[str]:
    """A process that starts quickly."""
    return [sys.executable, "-I", "-S", "-c", code]


async def test_a_model_that_keeps_dying_is_started_again_after_growing_pauses() -> None:
    pauses: list[float] = []
    enough = asyncio.Event()

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 9:
            enough.set()
            await asyncio.Event().wait()

    model = LocalModel(lambda _: running(READY), pause=pause)
    assert await model.start() == "http://127.0.0.1:9"
    await asyncio.wait_for(enough.wait(), 60)
    await model.stop()
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert model.restarts == 8


async def test_it_is_started_again_where_it_was() -> None:
    ports: list[int] = []
    again = asyncio.Event()

    def command(port: int) -> list[str]:
        ports.append(port)
        if len(ports) == 2:
            again.set()
        return running(READY)

    model = LocalModel(command, pause=lambda _: asyncio.sleep(0))
    await model.start()
    await asyncio.wait_for(again.wait(), 60)
    await model.stop()
    assert ports[:2] == [0, 9], "clients of the gateway know nothing of another port"


async def test_a_model_that_cannot_start_is_named_with_its_exit_code() -> None:
    model = LocalModel(lambda _: running("raise SystemExit(3)"))
    with pytest.raises(ConfigError, match="3"):
        await model.start()


async def test_a_model_is_told_what_it_may_keep_and_the_gateway_s_secret() -> None:
    settings = Settings(kv=Kv(reuse=False, memory=2**28, chunk=256))
    model = local_model(settings, print)
    wanted = {
        "REUSE": "false",
        "MEMORY": str(2**28),
        "CHUNK": "256",
        "GATEWAY_SECRET": model.secret,
    }
    code = f"import os; assert {wanted}.items() <= dict((k[13:], v) for k, v in os.environ.items()"
    code += f" if k.startswith('THINKONCE_KV_')).items(); {READY}"
    model._command = lambda _: running(code)
    await model.start()
    await model.stop()
    assert Sources(environ={f"THINKONCE_KV_{k}": v for k, v in wanted.items()}).load().kv == Kv(
        reuse=False, memory=2**28, chunk=256, gateway_secret=model.secret
    )
    assert len({local_model(settings, print).secret for _ in range(9)}) == 9


def test_all_that_is_said_of_attention_state_reaches_the_model(tmp_path: Path) -> None:
    said = Kv(
        reuse=False,
        memory=2**28,
        policy="tail",
        slo=0.5,
        store=str(tmp_path),
        disk=2**30,
        sequences=7,
        chunk=256,
        codec="int8",
        method="link",
        link_tokens=0,
        public=["a.json", "b.json"],
        sentence_tokens=256,
        schemas=str(tmp_path),
        trace=str(tmp_path / "trace"),
        gateway_secret="s" * 32,
    )
    usual = msgspec.structs.asdict(Kv())
    told = msgspec.structs.asdict(said)
    assert all(told[name] != usual[name] for name in usual), "the test names every setting"
    model = local_model(Settings(kv=said), print)
    found = Sources(environ=dict(model._environ)).load().kv
    assert found == msgspec.structs.replace(said, gateway_secret=""), "that is made at the start"


async def test_a_model_that_does_not_end_by_itself_is_killed() -> None:
    model = LocalModel(lambda _: running(STUBBORN))
    others = set(psutil.Process().children())  # of servers that other tests share
    await model.start()
    (child,) = set(psutil.Process().children()) - others
    await model.stop(0.1)
    assert not child.is_running()


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = make_tokenizer()
    make_network(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
async def host(tmp_path: Path, upstream: Upstream) -> AsyncIterator[Host]:
    async with AsyncExitStack() as stack:
        yield Host(stack, tmp_path, upstream)


@pytest.mark.slow
async def test_a_killed_model_comes_back_and_a_killed_gateway_takes_it_along(
    host: Host, small_model: Path
) -> None:
    gateway = await host.local_gateway(small_model)
    model = the_model_of(gateway)
    assert (await gateway.chat(model="tiny", max_tokens=4)).status == 200
    model.kill()
    psutil.wait_procs([model])
    await told(gateway, "the local model exited -9; it is started again in 0.5 s")
    down = await gateway.chat("meanwhile", model="tiny", max_tokens=4)
    assert (down.status, down.headers["retry-after"], down.cache) == (503, "5", "MISS")
    assert set(down.json["error"]) == {"message", "type", "code", "param"}
    assert down.json["error"]["message"] == "the local model is being restarted"
    assert (await gateway.chat(model="tiny", max_tokens=4)).status == 503, "`length` is not kept"
    await told(gateway, "the local model is back on http://127.0.0.1:")
    assert (await gateway.chat("meanwhile", model="tiny", max_tokens=4)).status == 200
    again = the_model_of(gateway)
    gateway.child.kill()
    _, left = psutil.wait_procs([again], timeout=4)
    # Where nobody has taken it in yet it is a zombie: it runs no more.
    assert [model for model in left if model.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.slow
async def test_several_workers_have_one_model_and_all_know_when_it_is_gone(
    host: Host, small_model: Path
) -> None:
    gateway = await host.local_gateway(small_model, "--workers", "2")
    workers = await crew(host, gateway)
    model = the_model_of(gateway)
    for worker in workers:
        assert (await worker.chat(model="tiny", max_tokens=4)).status == 200
    model.kill()
    psutil.wait_procs([model])
    await told(gateway, "the local model exited -9; it is started again in 0.5 s")
    for worker in workers:
        down = await worker.chat(f"meanwhile {worker.serial}", model="tiny", max_tokens=4)
        assert down.json["error"]["message"] == "the local model is being restarted"
    await told(gateway, "the local model is back on http://127.0.0.1:")
    for worker in workers:
        assert (await worker.chat(worker.serial, model="tiny", max_tokens=4)).status == 200
    again = the_model_of(gateway)
    gateway.child.kill()
    gone, left = psutil.wait_procs([again], timeout=30)
    assert (gone, left) == ([again], [])


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_revoked_client_is_refused_at_the_model_too_once_the_gateway_has_reloaded(
    host: Host, small_model: Path, workers: str
) -> None:
    config = host.folder / "thinkonce.toml"

    def write(*keys: str) -> None:
        digests = {key: hashlib.sha256(key.encode()).hexdigest() for key in keys}
        tables = [f'[clients.{key}]\nkey_sha256 = "{sha}"\n' for key, sha in digests.items()]
        config.write_text("\n".join(tables))

    write("alice", "bob")
    arguments = ("--config", str(config), "--workers", workers)
    gateway = await host.local_gateway(small_model, *arguments)
    (at,) = (found[1] for line in gateway.lines if (found := re.search(r"is on (\S+)", line)))

    async def status(key: str) -> int:
        asked = {"authorization": f"Bearer {key}"}
        async with gateway.session.get(f"{at}/v1/models", headers=asked) as response:
            return response.status

    assert [await status(key) for key in ("alice", "bob", "eve")] == [200, 200, 401]
    write("bob", "eve")
    gateway.child.send_signal(signal.SIGHUP)
    await told(gateway, "SIGHUP: 2 clients are known")
    assert [await status(key) for key in ("alice", "bob", "eve")] == [401, 200, 200]


def the_model_of(gateway: Process) -> psutil.Process:
    children = psutil.Process(gateway.child.pid).children()
    (child,) = (each for each in children if "serve-model" in each.cmdline())
    return child


async def told(gateway: Process, what: str) -> None:
    assert gateway.child.stderr is not None
    async with asyncio.timeout(60):
        while what not in (line := (await gateway.child.stderr.readline()).decode()):
            assert line, f"it ended without {what!r}"
