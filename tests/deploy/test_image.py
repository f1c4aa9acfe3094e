"""Dockerfile, compose.yaml and .dockerignore: what they name exists, and what they run works."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.commands import accepted_by_serve, loads
from gateway.served import served
from thinkonce.cli.serve import MODEL_PORT
from thinkonce.settings import Settings, Sources
from thinkonce.units import parse_bytes, parse_seconds

ROOT = Path(__file__).parent.parent.parent
UPSTREAM = ("--upstream", "http://127.0.0.1:9")
GATEWAY, MODEL = "Dockerfile", "deploy/Dockerfile.model"
IMAGES = pytest.mark.parametrize("image", [GATEWAY, MODEL])


@dataclass(frozen=True)
class Line:
    """One instruction; `stage` counts the FROM before it."""

    stage: int
    word: str
    rest: str


def instructions(image: str) -> list[Line]:
    text = re.sub(r"^#.*\n", "", (ROOT / image).read_text(encoding="utf-8"), flags=re.M)
    stage, found = 0, []
    for line in text.replace("\\\n", " ").splitlines():
        word, _, rest = line.partition(" ")
        if word:
            stage += word == "FROM"
            found.append(Line(stage, word, rest.strip()))
    return found


def final(word: str, image: str = GATEWAY) -> list[str]:
    lines = instructions(image)
    last = max(line.stage for line in lines)
    return [line.rest for line in lines if (line.stage, line.word) == (last, word)]


def environment(image: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for line in final("ENV", image) for pair in shlex.split(line))


@IMAGES
def test_what_is_copied_is_there_and_not_ignored(image: str) -> None:
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    let_in = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert "*" in rules, "all else stays out: a store or a key may lie beside"
    for line in instructions(image):
        if line.word == "COPY" and not line.rest.startswith("--from"):
            for name in line.rest.split()[:-1]:
                assert (ROOT / name).exists()
                assert name in let_in


@IMAGES
def test_what_is_installed_is_an_extra_of_this_package_under_its_pins(image: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    install, *others = (i.rest for i in instructions(image) if "pip --python" in i.rest)
    (extras,) = re.findall(r'"\.\[([\w,]+)\]"', install)
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    assert any("PIP_CONSTRAINT=/src/constraints.txt" in i.rest for i in instructions(image))
    assert all("--no-deps --require-hashes" in line for line in others)


@IMAGES
def test_the_image_runs_as_nobody_in_particular_and_builds_nothing(image: str) -> None:
    user, group = final("USER", image)[-1].split(":")
    assert int(user) > 999
    assert int(group) > 999, "numbers: Kubernetes checks runAsNonRoot by them"
    assert not any(re.search(r"pip|apt|gcc", rest) for rest in final("RUN", image))


def test_a_model_s_image_keeps_what_it_has_read_in_its_volume_and_lets_others_ask() -> None:
    found = {name: value for name, value in environment(MODEL).items() if "THINK" in name}
    settings, command = loads(found), json.loads(final("CMD", MODEL)[0])
    assert final("VOLUME", MODEL) == [settings.data.dir]
    assert settings.kv.store == f"{settings.data.dir}/kv"
    accepted_by_serve(command)
    assert command[-2:] == ["--host", "0.0.0.0"], "a container's loopback is its own"
    assert final("EXPOSE", MODEL) == [str(MODEL_PORT)]
    (check,) = final("HEALTHCHECK", MODEL)
    assert f"http://127.0.0.1:{MODEL_PORT}/readyz" in check


def test_its_environment_and_its_command_are_accepted() -> None:
    found = environment(GATEWAY)
    settings = loads({name: value for name, value in found.items() if "THINK" in name})
    assert settings.gateway.host == "0.0.0.0", "a container's loopback is its own"
    assert final("EXPOSE") == [str(settings.gateway.port)]
    assert final("VOLUME") == [settings.data.dir]
    assert json.loads(final("ENTRYPOINT")[0]) == ["thinkonce"]
    accepted_by_serve([*json.loads(final("CMD")[0]), *UPSTREAM])


@pytest.mark.slow
def test_its_health_check_is_content_with_a_gateway_that_serves_and_no_other(
    tmp_path: Path,
) -> None:
    words = json.loads(final("HEALTHCHECK")[0].partition("CMD ")[2].replace("\\\\", "\\"))
    assert words.pop(0) == "python"

    def check(port: str) -> int:
        environ = {**os.environ, "THINKONCE_GATEWAY_PORT": port}
        done = subprocess.run(
            [sys.executable, *words], env=environ, capture_output=True, timeout=20, check=False
        )
        return done.returncode

    with served(tmp_path, *UPSTREAM, "--store", "memory://") as url:
        port = url.rpartition(":")[2]
        assert check(port) == 0
    assert check(port) == 1


# -- compose -------------------------------------------------------------------------------------


def compose() -> Any:
    return yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))


def test_compose_gives_the_gateway_flags_and_settings_that_exist() -> None:
    gateway = compose()["services"]["gateway"]
    accepted_by_serve(gateway["command"])
    environ = {name: str(value) for name, value in gateway["environment"].items()}
    token = environ["THINKONCE_ADMIN_TOKEN"]
    assert token.startswith("${THINKONCE_ADMIN_TOKEN:?"), "no token, no start"
    settings = loads({**environ, "THINKONCE_ADMIN_TOKEN": "a long enough token"})
    assert parse_bytes(gateway["mem_limit"].upper()) > 1.5 * (settings.cache.max_bytes or 0)


def test_compose_leaves_time_to_drain_and_puts_the_store_into_a_volume() -> None:
    document = compose()
    gateway = document["services"]["gateway"]
    assert parse_seconds(gateway["stop_grace_period"]) > Settings().gateway.drain_timeout
    (name, where) = gateway["volumes"][0].split(":")
    assert name in document["volumes"]
    assert [where] == final("VOLUME")
    assert gateway["ports"][0].startswith("127.0.0.1:"), "others are let in knowingly"


# -- as far as it goes without a daemon ------------------------------------------------------------


@pytest.mark.slow
def test_what_the_image_installs_serves_without_anything_else(tmp_path: Path) -> None:
    """The instructions of the first stage, in a folder that holds what is copied."""
    ignored = fnmatch.filter(os.listdir(ROOT), "*.db*")
    assert not ignored
    venv, pip = tmp_path / "venv", [sys.executable, "-m", "pip"]
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    environ = {**os.environ, "PIP_CONSTRAINT": str(ROOT / "constraints.txt")}
    environ.pop("PYTHONPATH", None)
    subprocess.run(
        [*pip, "--python", venv / "bin" / "python", "install", "-q", ".[gateway,encryption]"],
        cwd=ROOT,
        env=environ,
        check=True,
        timeout=500,
    )
    settings = {"THINKONCE_DATA_DIR": str(tmp_path), **environ}
    done = subprocess.run(
        [venv / "bin" / "thinkonce", "doctor", "--json"],
        cwd=tmp_path,
        env=settings,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert json.loads(done.stdout), done.stderr
    assert not (venv / "bin" / "pip").exists()


def test_a_secret_of_the_container_is_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("a long enough token\n", encoding="utf-8")
    environ = {"THINKONCE_ADMIN_TOKEN_FILE": str(file)}
    assert Sources(environ=environ).load().admin.token == "a long enough token"
