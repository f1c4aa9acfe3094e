"""mypy and pyright agree with `api.py`, each in its strict mode."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
API = Path(__file__).parent / "api.py"


def checker(*arguments: str) -> subprocess.CompletedProcess[str]:
    # A warning about its own newer versions is not about our types.
    environment = {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_pyright_sees_the_signatures_users_wrote() -> None:
    done = checker("pyright", "--outputjson", "--pythonpath", sys.executable, str(API))
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    found = [
        f"{entry['range']['start']['line'] + 1}: {entry['message']}"
        for entry in report["generalDiagnostics"]
    ]
    assert not found, "\n".join(found)
    assert report["summary"]["filesAnalyzed"] == 1, "api.py itself was not looked at"


def test_mypy_sees_the_signatures_users_wrote() -> None:
    done = checker("mypy", "--strict", "--warn-unused-ignores", str(API))
    assert done.returncode == 0, done.stdout + done.stderr
