"""A cache's tiers with questions in them, for tests: what is put is found, by brute force too."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from thinkonce.host.mapfile import HostFile, host_path
from thinkonce.likeness import Hint
from thinkonce.meaning.index.packed import pack, packed_bytes
from thinkonce.meaning.index.spaces import Spaces
from thinkonce.meaning.text.lexical import fingerprint
from thinkonce.testing.clock import FakeClock
from thinkonce.testing.entries import entry_of, hint_of, key_of
from thinkonce.tiers.memory import MemoryTier
from thinkonce.tiers.sqlite import SqliteTier
from thinkonce.tiers.tier import Key

WIDTH = 16


def vector_of(text: str) -> Any:
    seed = int.from_bytes(blake2b(text.encode(), digest_size=4).digest())
    found = np.random.default_rng(seed).standard_normal(WIDTH).astype(np.float32)
    return found / np.linalg.norm(found)


def kept_of(text: str) -> Any:
    """`vector_of` as an index keeps it: in eight bits."""
    numbers, scale = pack(vector_of(text))
    return numbers.astype(np.float32) * scale


class Fixed:
    """An embedder that gives each text its own vector."""

    family, dimensions, concurrency = "", WIDTH, 1

    def __init__(self, name: str = "fixed") -> None:
        self.name = name
        self.asked: list[str] = []
        self.failing: set[str] = set()

    def embed(self, texts: Sequence[str]) -> Any:
        self.asked += texts
        if self.failing.intersection(texts):
            raise RuntimeError("no vector for this")
        return np.stack([vector_of(text) for text in texts])

    def close(self) -> None:
        return None


class Desk:
    """One process's view: a memory tier, the store at `path` (None: no store), and the spaces."""

    def __init__(self, path: Path | None, clock: FakeClock, **options: Any) -> None:
        self.clock, self.options = clock, options
        self.embedder = options.pop("embedder", None) or Fixed()
        self.host = None if path is None else HostFile(host_path(path))
        self.store = None
        if path is not None and self.host is not None:
            self.store = SqliteTier(path, secret=b"s" * 32, host=self.host, clock=clock.clock)
        purges = None if self.store is None else self.store.purges
        self.memory = MemoryTier(max_entries=100_000, clock=clock.clock, purges=purges)
        self.spaces = self.opened()

    def opened(self) -> Spaces:
        return Spaces(self.memory, self.store, self.embedder, **self.options)

    def hint(self, text: str, partition: str = "p", *, timely: bool = True) -> Hint:
        kept = hint_of("", partition).partition
        if not timely:
            return Hint(kept, text, fingerprint=fingerprint(text))
        vector = packed_bytes(vector_of(text))
        return Hint(kept, text, self.embedder.name, vector, fingerprint(text))

    def put(self, text: str, partition: str = "p", *, timely: bool = True, **fields: Any) -> Key:
        """As a flow does it, once the model has answered `text`."""
        key, hint = key_of(f"{partition}/{text}"), self.hint(text, partition, timely=timely)
        entry = entry_of(self.clock, text, hint=hint, epoch=self.memory.purges.epoch[0], **fields)
        self.memory.put(key, entry)
        if self.store is not None:
            self.store.put(key, entry)
        self.spaces.add(key, hint)
        return key

    def found(self, text: str, partition: str = "p", count: int = 3) -> list[str]:
        """The questions of the nearest entries that are there; what is gone is forgotten."""
        name = hint_of("", partition).partition
        while True:
            near = self.spaces.space(name).nearest(vector_of(text), count)
            told = [self.question(one.name) for one in near]
            gone = [one.name for one, question in zip(near, told, strict=True) if question is None]
            if not gone:
                return [question for question in told if question is not None]
            for digest in gone:
                self.spaces.forget(name, digest)

    def alike(self, text: str, partition: str = "p") -> list[str | None]:
        space = self.spaces.space(hint_of("", partition).partition)
        return [self.question(digest) for digest in space.alike(fingerprint(text))]

    def question(self, digest: bytes) -> str | None:
        key = self.spaces.key_of(digest)
        entry = self.memory.peek(key)
        if entry is None and self.store is not None:
            entry = self.store.peek(key)
        return None if entry is None or entry.hint is None else entry.hint.text

    def flush(self) -> None:
        assert self.store is not None
        assert self.store.flush(10)

    def close(self) -> None:
        self.spaces.close()
        if self.store is not None:
            self.store.close()
        if self.host is not None:
            self.host.close()
