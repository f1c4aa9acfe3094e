"""The systemd unit, the manifests for a cluster, the proxies in front: tried as far as possible."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from deploy.commands import accepted_by_serve, loads
from gateway.conftest import Stage, until
from gateway.upstream import DONE, Out, Seen, chunks
from thinkonce.gateway.description import document_of
from thinkonce.kv.serving.metrics import FAMILIES, PREFIX
from thinkonce.kv.weights import packaged
from thinkonce.settings import Settings
from thinkonce.units import parse_bytes, parse_seconds

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
UNITS = ("thinkonce.service", "thinkonce-model.service")
MANIFESTS = ("kubernetes.yaml", "kubernetes-model.yaml")
PATHS = set(document_of(Settings())["paths"])
DRAIN = Settings().gateway.drain_timeout  # and that of the model server
SECONDS = 60


# -- systemd -------------------------------------------------------------------------------------


def unit(name: str = UNITS[0]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (DEPLOY / name).read_text(encoding="utf-8").splitlines():
        if line and line[0] not in "#[":
            name, value = line.split("=", 1)
            found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_starts_a_command_with_variables_that_exist(name: str, tmp_path: Path) -> None:
    lines = unit(name)
    program, *words = shlex.split(lines["ExecStart"][0])
    assert program.endswith("/bin/thinkonce")
    accepted_by_serve(words)
    for secret in (line.partition(":")[0] for line in lines["LoadCredential"]):
        (tmp_path / secret).write_text(f"a long enough {secret} for tests", encoding="utf-8")
    environ = dict(line.replace("%d", str(tmp_path)).split("=", 1) for line in lines["Environment"])
    settings = loads(environ)
    assert settings.admin.token == "a long enough admin-token for tests"
    assert settings.data.dir == f"/var/lib/{lines['StateDirectory'][0]}"
    if words[0] == "serve-model":
        assert settings.kv.store == f"{settings.data.dir}/kv"


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_leaves_time_to_drain_and_reloads_by_the_signal_that_reloads(name: str) -> None:
    lines = unit(name)
    assert parse_seconds(lines["TimeoutStopSec"][0]) > DRAIN
    assert lines["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert lines["Type"] == ["notify"]


def test_both_units_are_as_shut_off_and_keep_apart_what_they_keep() -> None:
    gateway, model = map(unit, UNITS)
    own = {"Description", "ExecStart", "ExecReload", "StateDirectory", "WorkingDirectory", "Wants"}
    own |= {"After", "TimeoutStartSec", "TimeoutStopSec", "Environment", "LoadCredential"}
    assert {n: v for n, v in gateway.items() if n not in own} == {
        n: v for n, v in model.items() if n not in own | {"CPUWeight"}
    }
    assert gateway["StateDirectory"] != model["StateDirectory"]


@pytest.mark.parametrize("name", UNITS)
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd on this machine")
def test_systemd_finds_nothing_wrong_with_a_unit(name: str, tmp_path: Path) -> None:
    program = unit(name)["ExecStart"][0].split()[0]
    text = (DEPLOY / name).read_text(encoding="utf-8").replace(program, sys.executable)
    (tmp_path / name).write_text(text, encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / name)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert name not in done.stderr, done.stderr


@contextmanager
def listening(folder: Path) -> Iterator[socket.socket]:
    """What systemd listens with."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(folder / "notify"))
        manager.settimeout(SECONDS)
        yield manager


@pytest.mark.slow
def test_systemd_is_told_when_it_serves_and_when_it_drains(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "thinkonce", "serve", "--port", "0", "--store", "memory://"]
    with listening(tmp_path) as manager:
        child = subprocess.Popen(
            [*command, "--upstream", "http://127.0.0.1:9"],
            cwd=tmp_path,
            env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        ready = _told(manager, "READY=1")
        port = int(ready.rpartition(":")[2])
        socket.create_connection(("127.0.0.1", port), SECONDS).close()
        child.send_signal(signal.SIGTERM)
        assert "STATUS=draining" in _told(manager, "STOPPING=1")
        assert child.wait(SECONDS) == 0


def _told(manager: socket.socket, state: str) -> str:
    while True:
        message = manager.recv(4096).decode()
        if state in message.splitlines():
            return message


# -- a cluster -----------------------------------------------------------------------------------


def manifests(name: str) -> list[Any]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_pods_probes_and_arguments_exist_and_it_may_drain(name: str) -> None:
    workload = manifests(name)[0]["spec"]
    spec = workload["template"]["spec"]
    (container,) = spec["containers"]
    accepted_by_serve(container["args"])
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        assert container[probe]["httpGet"]["path"] in PATHS
    pause = float(container["lifecycle"]["preStop"]["exec"]["command"][-1])
    assert spec["terminationGracePeriodSeconds"] > pause + DRAIN
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    claims = {claim["metadata"]["name"] for claim in workload["volumeClaimTemplates"]}
    assert mounts == {volume["name"] for volume in spec["volumes"]} | claims


def test_a_model_s_pod_has_room_for_what_it_is_told_to_keep(tmp_path: Path) -> None:
    workload = manifests(MANIFESTS[1])[0]["spec"]
    (container,) = workload["template"]["spec"]["containers"]
    secrets = {each["name"]: each["value"] for each in container["env"]}
    for name in [name for name in secrets if name.endswith("_FILE")]:
        secret = tmp_path / Path(secrets[name]).name
        secret.write_text("a secret of 32 characters and more", encoding="utf-8")
        secrets[name] = str(secret)
    settings, resources = loads(secrets), container["resources"]
    assert settings.local.threads == int(resources["requests"]["cpu"])
    given = parse_bytes(resources["limits"]["memory"] + "B")
    assert settings.kv.memory + packaged.MODELS[0].file_bytes * 5 + 2**30 <= given
    claim = workload["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"]
    assert settings.kv.disk + 2**30 <= parse_bytes(claim + "B")


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_service_finds_the_pods(name: str) -> None:
    workload, service = manifests(name)
    labels = workload["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    names = {
        port["name"] for port in workload["spec"]["template"]["spec"]["containers"][0]["ports"]
    }
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= names


# -- alerts --------------------------------------------------------------------------------------


def test_alerts_of_the_model_server_are_about_numbers_that_it_has() -> None:
    there = {PREFIX + name: label for name, _, label, _ in FAMILIES}
    rules = yaml.safe_load((DEPLOY / "alerts.yaml").read_text(encoding="utf-8"))["groups"][1]
    named = {
        rule["alert"]: re.findall(r"(thinkonce_\w+)(\{\w+)?", rule["expr"])
        for rule in rules["rules"]
    }
    assert all(named.values())
    for name, label in (pair for pairs in named.values() for pair in pairs):
        assert label in ("", "{" + there[name])
    assert len({rule["alert"] for rule in rules["rules"]}) == len(rules["rules"])


async def test_alerts_are_about_numbers_that_the_gateway_has(stage: Stage) -> None:
    gateway = await stage.gateway()
    await gateway.chat()
    await gateway.chat()
    got = await gateway.get("/metrics")
    there = set(re.findall(r"^(?:# TYPE )?(thinkonce_\w+)", got.body.decode(), re.M))
    rules = yaml.safe_load((DEPLOY / "alerts.yaml").read_text(encoding="utf-8"))
    for rule in rules["groups"][0]["rules"]:
        for name in re.findall(r"thinkonce_\w+", rule["expr"]):
            assert name in there, f"{rule['alert']}: there is no {name}"


# -- proxies -------------------------------------------------------------------------------------


def test_proxies_wait_longer_than_the_gateway_does() -> None:
    gateway = Settings().gateway
    for name in ("nginx.conf", "Caddyfile"):
        text = (DEPLOY / name).read_text(encoding="utf-8")
        (seconds,) = re.findall(r"(?:proxy_read_timeout|response_header_timeout) (\d+)s", text)
        assert int(seconds) > max(gateway.first_byte_timeout, gateway.read_timeout)


NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/errors warn;
events {{ }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  {ours}
}}
"""


def _configured(folder: Path, gateway_port: int, port: int) -> Path:
    """Our file, listening without TLS, since there is no certificate."""
    ours = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
    ours = ours.replace("127.0.0.1:8000", f"127.0.0.1:{gateway_port}")
    ours = ours.replace("listen 443 ssl", f"listen 127.0.0.1:{port}")
    ours = re.sub(r"^ *ssl_\S* .*\n", "", ours, flags=re.M)
    file = folder / "nginx.conf"
    file.write_text(NGINX.format(folder=folder, ours=ours), encoding="utf-8")
    return file


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _accepts(port: int) -> None:
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionError:
                await asyncio.sleep(0.01)  # another process: there is nothing to wait on
            else:
                writer.close()
                await writer.wait_closed()
                return


def test_the_nginx_file_has_no_directive_that_1_18_does_not_know() -> None:
    text = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
    names = re.findall(r"^\s*(\w+)", text, re.M)
    assert "proxy_pass" in names
    assert "http2" not in names, "a directive of its own since 1.25.1"


@pytest.mark.skipif(shutil.which("nginx") is None, reason="no nginx on this machine")
async def test_nginx_passes_a_stream_on_as_it_comes_and_keeps_the_rooms_shut(
    stage: Stage, tmp_path: Path
) -> None:
    go_on = asyncio.Event()

    async def halting(seen: Seen, out: Out) -> None:
        first, *rest = chunks("one", "two")
        await out.begin_stream()
        await out.event(first)
        await go_on.wait()
        for event in [*rest, DONE]:
            await out.event(event)
        await out.end()

    stage.upstream.script = halting
    gateway = await stage.gateway()
    port = _free_port()
    file = _configured(tmp_path, int(gateway.url.rpartition(":")[2]), port)
    nginx = await asyncio.create_subprocess_exec("nginx", "-e", "stderr", "-c", str(file))
    try:
        await _accepts(port)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
            async with session.post("/v1/chat/completions", json=body) as got:
                assert got.headers["x-cache"] == "MISS"
                async with asyncio.timeout(SECONDS):
                    assert b"assistant" in await got.content.readline()
                assert not go_on.is_set(), "the first event came before the others were made"
                go_on.set()
                assert b"[DONE]" in await got.read()
            for path in ("/cache/stats", "/metrics"):
                async with session.get(path) as got:
                    assert got.status == 404
                    assert "x-request-id" not in got.headers, "nginx says so, not the gateway"
    finally:
        nginx.terminate()
        await nginx.wait()
    connections = gateway.server.server_state.connections
    await until(lambda: len(connections) <= 1)
