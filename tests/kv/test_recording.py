"""`[kv] trace`: what a model server was asked, as names, replayed by `thinkonce plan --kv`."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import zstandard
from small_model import Serve

from thinkonce.cli.app import main
from thinkonce.errors import ConfigError
from thinkonce.kv.planning.recording import Recording
from thinkonce.kv.planning.trace import read_trace
from thinkonce.kv.prefix.blocks import Block, blocks_of
from thinkonce.kv.prefix.owner import Owner
from thinkonce.settings import Kv

TEXT = "The quick brown fox jumps over the lazy dog. " * 12
KEY = b"k" * 32


def blocks(*tokens: int, owner: str = "") -> list[Block]:
    return list(blocks_of(tokens, 2, bytes(32), Owner(owner)))


def test_what_was_asked_is_replayed_with_the_hits_that_there_were(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "asked.jsonl"
    served = serve(kv=Kv(chunk=64, trace=str(file)))
    for text in (TEXT, TEXT + TEXT, TEXT):
        body = {"prompt": text, "max_tokens": 1}
        httpx.post(f"{served.url}/v1/completions", json=body).raise_for_status()
    httpx.post(
        f"{served.url}/kv/preload", json={"url": "/v1/completions", "body": {"prompt": TEXT * 2}}
    ).raise_for_status()
    stats = httpx.get(f"{served.url}/kv/stats").json()
    served.engine.close()
    trace = read_trace(str(file))
    assert trace.block_tokens == 64
    assert len(trace.requests) == 3, "what was only read ahead was not asked"
    first, second, third = trace.requests
    assert first.blocks == third.blocks == second.blocks[: len(first.blocks)]
    assert main(["plan", "--kv", str(file), "--blocks", "100", "--json"]) == 0
    run = json.loads(capsys.readouterr().out)["runs"][0]
    assert run["hit_ratio"] == pytest.approx(stats["cached_tokens"] / stats["prompt_tokens"])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "fox" not in file.read_text()


def test_names_tell_nothing_without_the_key_and_are_an_owners_own(tmp_path: Path) -> None:
    names = []
    for number, (key, owner) in enumerate([(KEY, "a"), (KEY, "a"), (KEY, "b"), (b"other", "a")]):
        recording = Recording(tmp_path / str(number), 2, key)
        recording.add(5, blocks(1, 2, 3, 4, 5, owner=owner))
        recording.close()
        names.append(read_trace(str(tmp_path / str(number))).requests[0].blocks)
    assert names[0] == names[1]
    assert not set(names[0]) & {*names[2], *names[3]}
    held = blocks(1, 2, owner="a")[0].id
    assert str(int.from_bytes(held[:8]) >> 11) not in names[0]


def test_the_file_is_bounded_and_the_one_before_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "asked"
    recording = Recording(file, 2, KEY, most_bytes=1000)
    recording._lines.end(10)  # from now on a line is written as it comes
    for number in range(100):
        recording.add(2, blocks(number, number))
    recording.close()
    before = tmp_path / "asked.1"
    assert file.stat().st_size <= 1000
    assert before.stat().st_size <= 1000
    kept = [*read_trace(str(before)).requests, *read_trace(str(file)).requests]
    assert len({asked.blocks for asked in kept}) == len(kept) > 10


def test_a_file_that_cannot_be_written_is_named_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\[kv\] trace"):
        Recording(tmp_path / "no" / "asked", 2, KEY)


def test_zst_is_unpacked_and_what_is_cut_off_is_named(tmp_path: Path) -> None:
    rows = [{"timestamp": n, "input_length": 600, "hash_ids": [n]} for n in range(500)]
    packed = zstandard.compress("\n".join(map(json.dumps, rows)).encode())
    file = tmp_path / "trace.jsonl.zst"
    file.write_bytes(packed)
    assert len(read_trace(str(file)).requests) == 500
    file.write_bytes(b"no zst")
    with pytest.raises(ConfigError, match="--kv"):
        read_trace(str(file))


def test_without_the_package_the_command_says_what_brings_it(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['zstandard'] = None\n"
        "from thinkonce.cli.app import main\n"
        "sys.exit(main(['plan', '--kv', 'trace.zst']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert done.returncode == 1
    assert "thinkonce[local]" in done.stderr
