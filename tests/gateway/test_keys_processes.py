"""Known clients of a gateway that runs: keys made and revoked beside it, and a start refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gateway.conftest import CHAT
from gateway.test_processes import Host, Process
from gateway.test_reload import hung_up
from gateway.upstream import Upstream
from thinkonce.cli import main

ASKED = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
async def host(tmp_path: Path, upstream: Upstream) -> AsyncIterator[Host]:
    async with AsyncExitStack() as stack:
        yield Host(stack, tmp_path, upstream)


async def status(gateway: Process, key: str) -> int:
    headers = {"authorization": f"Bearer {key}"}
    async with gateway.session.post(gateway.url + CHAT, json=ASKED, headers=headers) as response:
        return response.status


async def test_keys_made_and_revoked_hold_from_the_next_sighup_on(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    file = host.folder / "thinkonce.toml"
    file.write_text("# ours\n[gateway]\naccess_log = false\n")

    def keys(*arguments: str) -> str:
        assert main(["keys", *arguments, "--config", str(file)]) == 0
        return capsys.readouterr().out.split()[0]

    alice = keys("add", "alice")
    gateway = await host.gateway()
    bob = keys("add", "bob", "--rate-limit", "1000")
    assert [await status(gateway, key) for key in (alice, bob)] == [200, 401]
    assert "clients.bob (new)" in await hung_up(gateway)
    assert [await status(gateway, key) for key in (alice, bob)] == [200, 200]
    keys("revoke", "alice")
    assert "clients.alice (gone)" in await hung_up(gateway)
    assert [await status(gateway, key) for key in (alice, bob)] == [401, 200]
    code, errors = await gateway.end()
    assert (code, alice in errors, bob in errors) == (0, False, False)
    assert file.read_text().startswith("# ours\n")


async def test_a_gateway_whose_key_strangers_could_use_does_not_start(host: Host) -> None:
    file = host.folder / "thinkonce.toml"
    file.write_text(
        f'[upstreams.main]\nurls = ["{host.upstream.url}"]\napi_key_env = "PROVIDER_KEY"\n'
    )
    child = await host.spawn("--host", "0.0.0.0", "--port", "0", PROVIDER_KEY="sk-own")
    said, errors = await child.communicate()
    assert (child.returncode, said) == (2, b"")
    (line,) = errors.decode().splitlines()
    assert line.startswith("thinkonce: [clients] is missing")
    assert "thinkonce keys add" in line
    child = await host.spawn("--port", "0")
    said, errors = await child.communicate()
    assert child.returncode == 2
    assert b"api_key_env='PROVIDER_KEY'" in errors
