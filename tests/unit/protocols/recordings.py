"""The recorded exchanges beside the repository; absent on most machines."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).resolve().parents[4] / "shared" / "data" / "recordings.jsonl.zst"

needs_recordings = pytest.mark.skipif(
    not FILE.exists(), reason=f"no {FILE.name}: the shared development data is not here"
)


@cache
def chat_recordings() -> tuple[dict[str, Any], ...]:
    """Every recorded chat completion with a JSON request; empty where the data is absent."""
    if not FILE.exists():
        return ()
    import zstandard  # only with the data

    with zstandard.open(FILE, "rt", encoding="utf8") as lines:
        rows = [json.loads(line) for line in lines]
    return tuple(
        row
        for row in rows
        if "chat/completions" in row["endpoint"] and isinstance(row["request_body"], dict)
    )
