"""The recorded exchanges beside the repository; absent on most machines."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from thinkonce.protocols.registry import DIALECTS

FILE = Path(__file__).resolve().parents[4] / "shared" / "data" / "recordings.jsonl.zst"

needs_recordings = pytest.mark.skipif(
    not FILE.exists(), reason=f"no {FILE.name}: the shared development data is not here"
)


@cache
def recordings(endpoint: str) -> tuple[dict[str, Any], ...]:
    """Every recorded call of `endpoint` ("chat/completions") with a JSON request.

    Empty where the data is absent.
    """
    return tuple(
        row
        for row in _rows()
        if _endpoint(row["endpoint"]) == endpoint and isinstance(row["request_body"], dict)
    )


def chat_recordings() -> tuple[dict[str, Any], ...]:
    return recordings("chat/completions")


@cache
def _rows() -> tuple[dict[str, Any], ...]:
    if not FILE.exists():
        return ()
    import zstandard  # only with the data

    with zstandard.open(FILE, "rt", encoding="utf8") as lines:
        return tuple(json.loads(line) for line in lines)


def _endpoint(path: str) -> str:
    """The name of what is served there, whatever a provider puts before it; else the path."""
    names = ("chat/completions", "embeddings", *sorted(DIALECTS))
    return next((name for name in names if path.endswith("/" + name)), path)
