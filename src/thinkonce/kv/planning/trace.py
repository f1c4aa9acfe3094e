"""Recorded requests as names of blocks: no text, no tokens.

Two public forms, a JSON object a line:

    a request          {"timestamp": ms, "input_length": n, "hash_ids": [...]}
                       512 tokens a block (Mooncake, FAST 2025), or `block_size`, as
                       `[kv] trace` writes it
    a conversation     {"id": ..., "block_size": n, "requests": [{"t": s, "in": n, "hash_ids": []}]}
                       ids are its own (agentic coding traces)

`hash_ids` are chained: an id stands for its block and all before it.
"""

from __future__ import annotations

import gzip
import io
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from thinkonce.errors import ConfigError

__all__ = ("Request", "Trace", "read_trace")

MOONCAKE_BLOCK = 512
_WRITTEN = "--kv"
_FORMS = "lines with hash_ids, or conversations with requests (docs/kv.md names both)"


class Request(NamedTuple):
    """One request: `at` in seconds, `tokens` of its prompt, the names of its blocks in order."""

    at: float
    tokens: int
    blocks: tuple[str, ...]


class Trace(NamedTuple):
    """Requests in the order of their times; `block_tokens` tokens to a block."""

    requests: list[Request]
    block_tokens: int

    @property
    def distinct(self) -> int:
        """Blocks that differ."""
        return len({name for asked in self.requests for name in asked.blocks})


def read_trace(path: str) -> Trace:
    """`-` is standard input; a name ending in .gz or .zst is unpacked. Raises ConfigError."""
    found: list[Request] = []
    sizes: set[int] = set()
    with _lines(path) as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                size, asked = _read(line, path, number)
                sizes.add(size)
                found += asked
    if not found:
        raise ConfigError(_WRITTEN, path, _FORMS)
    if len(sizes) > 1:
        raise ConfigError(_WRITTEN, path, f"blocks of one size, not of {sorted(sizes)} tokens")
    return Trace(sorted(found, key=lambda asked: asked.at), sizes.pop())


@contextmanager
def _lines(path: str) -> Iterator[Iterable[bytes]]:
    if path == "-":
        yield sys.stdin.buffer
        return
    try:
        with _opener(path)(Path(path), "rb") as file:
            yield file
    except OSError as error:
        why = error.strerror or error
        raise ConfigError(_WRITTEN, path, f"a file that can be read ({why})") from None
    except EOFError:
        raise ConfigError(_WRITTEN, path, "a file that is whole (it ends too early)") from None


def _opener(path: str) -> Callable[..., Any]:
    if not path.endswith(".zst"):
        return gzip.open if path.endswith(".gz") else open
    import zstandard

    @contextmanager
    def opened(path: Path, mode: str) -> Iterator[Iterable[bytes]]:
        try:
            # It reads by pieces; lines are made of them.
            with io.BufferedReader(zstandard.open(path, mode)) as file:
                yield file
        except zstandard.ZstdError as broken:
            raise OSError(str(broken)) from broken

    return opened


def _read(line: bytes, path: str, number: int) -> tuple[int, list[Request]]:
    try:
        row: dict[str, Any] = msgspec.json.decode(line, type=dict[str, Any])
        if "requests" not in row:
            names = tuple(str(each) for each in row["hash_ids"])
            asked = Request(row["timestamp"] / 1000, int(row["input_length"]), names)
            return int(row.get("block_size", MOONCAKE_BLOCK)), [asked]
        return int(row["block_size"]), list(_conversation(row))
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        wrong = f"{path} line {number}"
        raise ConfigError(_WRITTEN, wrong, f"{_FORMS} ({type(error).__name__}: {error})") from None


def _conversation(row: dict[str, Any]) -> Iterator[Request]:
    own = "" if row.get("hash_id_scope") == "global" else f"{row['id']} "
    for each in row["requests"]:
        if "hash_ids" in each:
            names = tuple(f"{own}{name}" for name in each["hash_ids"])
            yield Request(float(each["t"]), int(each["in"]), names)
