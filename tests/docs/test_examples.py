"""Every example runs as a user runs it, and prints what its docstring says it shows.

The docstring of an example ends with a paragraph of lines it prints, in this order:

    Shows:
        first answer: MISS
        second answer: HIT
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

# One gateway with a real model serves all of them.
pytestmark = pytest.mark.xdist_group("served")

EXAMPLES = sorted((Path(__file__).parent.parent.parent / "examples").glob("[!_]*.py"))
RUN_SECONDS = 180


def shown_by(example: Path) -> list[str]:
    text = ast.get_docstring(ast.parse(example.read_text(encoding="utf-8"))) or ""
    _, _, promised = text.partition("Shows:\n")
    return [line.strip() for line in promised.splitlines() if line.strip()]


# Those that wait longest for the model; what they show others show too.
LONG = (
    "batch_duplicates",
    "code_templates",
    "context_aware",
    "documentation",
    "faq_zh",
    "knowledge_base",
    "layered_ttl",
    "with_and_without",
)


def marked(example: Path) -> object:
    marks = (pytest.mark.slow,) if example.stem in LONG else ()
    return pytest.param(example, marks=marks, id=example.stem)


@pytest.mark.parametrize("example", [marked(example) for example in EXAMPLES])
def test_the_example_runs_and_shows_what_it_says(
    example: Path, user_environment: dict[str, str], tmp_path: Path
) -> None:
    promised = shown_by(example)
    assert promised, f"{example.name}: its docstring ends with `Shows:` and lines that it prints"
    done = subprocess.run(
        [sys.executable, str(example)],
        cwd=tmp_path,
        env=user_environment,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    rest = done.stdout
    for line in promised:
        _before, found, rest = rest.partition(line)
        assert found, f"{line!r} did not come (in this order):\n{done.stdout}\n{done.stderr}"
