"""`purge` by what entries are: their age, expiry, model and key."""

from __future__ import annotations

import json
import time
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest

from thinkonce.cli import main
from thinkonce.entry import Entry, Meta
from thinkonce.freshness import Rules
from thinkonce.shelf import open_shelf
from thinkonce.tiers.tier import Key

Out = pytest.CaptureFixture[str]


def told(capsys: Out, *arguments: str) -> Any:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_purge_by_age_expiry_model_and_key(tmp_path: Path, capsys: Out) -> None:
    url = f"sqlite:///{tmp_path / 'ages.db'}"
    now = time.time()
    shelf = open_shelf(url, Rules(), max_bytes=2**20, store_max_bytes=2**24, policy="cost")
    for name, model, age, left in (
        ("old", "a", 7200.0, 900.0),
        ("expired", "a", 60.0, -10.0),
        ("other", "b", 60.0, 900.0),
        ("keyed", "a", 60.0, 900.0),
        ("young", "a", 60.0, 900.0),
    ):
        digest = blake2b(name.encode(), digest_size=32).digest()
        entry = Entry(None, name, Meta(model=model), created_at=now - age)
        entry.expires_at, entry.gone_at = now + left, now + 10_000
        shelf.setting.tiers[-1].put(Key(digest, digest), entry)
    assert shelf.flush(10)
    shelf.close()
    key = blake2b(b"keyed", digest_size=32).hexdigest()
    for chosen, left in (
        (("--older-than", "1h"), {"expired", "other", "keyed", "young"}),
        (("--expired",), {"other", "keyed", "young"}),
        (("--model", "b"), {"keyed", "young"}),
        (("--key", key[:9]), {"young"}),
    ):
        assert told(capsys, "purge", *chosen, "--store", url)["purged"] == 1, chosen
        keys = {row["key"] for row in told(capsys, "ls", "--store", url)}
        assert keys == {blake2b(name.encode(), digest_size=32).hexdigest() for name in left}
