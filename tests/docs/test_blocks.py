"""Every fenced block of the pages runs, or says why it cannot."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from docs.blocks import RUNNABLE, SHOWN, Block, blocks, blocks_of
from thinkonce.gateway.metrics import FAMILIES, PREFIX
from thinkonce.settings import Sources

# One gateway with a real model serves all of them.
pytestmark = pytest.mark.xdist_group("served")

ALL = list(blocks())
RUN_SECONDS = 120
# How pages name the gateway; the tests' one listens elsewhere.
WRITTEN = "http://127.0.0.1:8000"


def of(language: str) -> list[Block]:
    return [block for block in ALL if block.language == language and not block.reason]


@pytest.mark.parametrize("block", ALL, ids=str)
def test_a_block_names_its_language_and_runs_or_says_why_not(block: Block) -> None:
    assert block.language in RUNNABLE | SHOWN, f"{block}: ```{block.language} is not known"


@pytest.mark.parametrize("block", of("json"), ids=str)
def test_json_blocks_are_json(block: Block) -> None:
    json.loads(block.code)


@pytest.mark.parametrize("block", of("toml"), ids=str)
def test_toml_blocks_are_configurations_that_load(block: Block, tmp_path: Path) -> None:
    tomllib.loads(block.code)
    file = tmp_path / "thinkonce.toml"
    file.write_text(block.code, encoding="utf-8")
    Sources(config=file, environ={}).load()


@pytest.mark.parametrize("block", of("promql"), ids=str)
def test_queries_are_of_metrics_that_exist(block: Block) -> None:
    ends = {"histogram": ("_bucket", "_sum", "_count")}
    known = {f"{PREFIX}{f.name}{end}" for f in FAMILIES for end in ends.get(f.kind, ("",))}
    named = set(re.findall(rf"{PREFIX}\w+", block.code))
    assert named
    assert named <= known


@pytest.mark.parametrize("block", of("python"), ids=str)
def test_python_blocks_run(
    block: Block, served: str, user_environment: dict[str, str], tmp_path: Path
) -> None:
    code = block.code.replace(WRITTEN, served)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=user_environment,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("block", of("sh"), ids=str)
def test_shell_blocks_run(
    block: Block, served: str, user_environment: dict[str, str], tmp_path: Path
) -> None:
    if "curl" in block.code and shutil.which("curl") is None:
        pytest.skip("this machine has no curl")
    done = subprocess.run(
        ["sh", "-eu", "-c", block.code.replace(WRITTEN, served)],
        cwd=tmp_path,
        env=user_environment,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"


def test_blocks_are_found_with_language_line_and_reason() -> None:
    text = "# A\n\n<!-- not run: no key -->\n```sh\na\n```\n\n- b\n  ```python\n  x = 1\n  ```\n"
    first, second = blocks_of(Path("a.md"), text)
    assert (first.language, first.line, first.code, first.reason) == ("sh", 4, "a\n", "no key")
    assert (second.language, second.line, second.reason) == ("python", 9, "")
