"""Other models whose blocks lie in the same folder: does one of them know a text, and which.

Each model's folder says in `model.json` what its name was made of, so that it can be told in what
two of them differ. Nothing of another model's blocks is loaded: their names suffice.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np

from thinkonce.kv.disk.folder import Folder
from thinkonce.kv.disk.model_folders import MODEL_FILE, said_of
from thinkonce.kv.disk.record import Form, Plain
from thinkonce.kv.disk.rows import ROW, Kind, Rows, read_rows
from thinkonce.kv.prefix.blocks import blocks_of
from thinkonce.kv.prefix.fingerprint import FINGERPRINT_BYTES, Fingerprint
from thinkonce.kv.prefix.owner import Owner

__all__ = ("MOST_MODELS", "Models", "describe")

MOST_MODELS = 8
"""That are looked through; those written to last."""

_Seen = tuple[tuple[str, int, int], ...]


def describe(root: Path, fingerprint: Fingerprint, name: str = "") -> None:
    """Write down in its folder what the model is, and what it is served as: people know that one.
    Where it cannot be written, it is not told.
    """
    path = root / fingerprint.digest().hex() / MODEL_FILE
    made = path.with_suffix(f".{secrets.token_hex(8)}")
    if said_of(path.parent).get("model") == name:
        return
    with suppress(OSError):
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.write(msgspec.json.encode({**msgspec.to_builtins(fingerprint), "model": name}))
        made.replace(path)


class Models:
    """See `prefix.why.OtherModels`. Thread-safe; what cannot be read is not there."""

    def __init__(self, root: Path, own: Fingerprint, form: Form | None = None) -> None:
        """`form`: how blocks are named in that folder."""
        self._root, self._own, self._name = root, own, own.digest().hex()
        self._form = form or Plain()
        self._rows: dict[str, tuple[_Seen, Rows]] = {}
        self._lock = threading.Lock()

    def differences(self, prompt: Sequence[int], end: int, owner: Owner) -> tuple[str, ...] | None:
        with self._lock:
            for name, other in self._others():
                size = other.chunk_tokens
                count = max(1, end // size)
                blocks = list(blocks_of(prompt[: count * size], size, bytes.fromhex(name), owner))
                if len(blocks) == count and self._has(name, self._form.name(blocks[-1].id)):
                    return self._own.differences(other)
        return None

    def _others(self) -> Iterator[tuple[str, Fingerprint]]:
        """Those whose names are made of what they say of themselves."""
        found = []
        with suppress(OSError):
            for entry in os.scandir(self._root):
                if len(entry.name) == 2 * FINGERPRINT_BYTES and entry.name != self._name:
                    found.append((entry.stat().st_mtime, entry.name))
        for _, name in sorted(found, reverse=True)[:MOST_MODELS]:
            with suppress(OSError, msgspec.DecodeError, ValueError):
                said = (self._root / name / MODEL_FILE).read_bytes()
                other = msgspec.json.decode(said, type=Fingerprint)
                if other.digest().hex() == name:
                    yield name, other

    def _has(self, name: str, id: bytes) -> bool:
        """Whether the latest row of that block says that it is there."""
        rows = self._followed(name)
        words = rows.view("<u4").reshape(-1, ROW.itemsize // 4)
        for at in np.flatnonzero(words[:, 0] == np.frombuffer(id, "<u4")[0])[::-1]:
            if rows["id"][at].tobytes() == id:
                return bool(rows["kind"][at] in (Kind.LIVE, Kind.STAYS))
        return False

    def _followed(self, name: str) -> Rows:
        """The rows of that model, read anew where files have changed."""
        folder = Folder(self._root / name)
        with suppress(OSError):
            paths = [folder.rows(writer) for writer in folder.writers()]
            seen = tuple((path.name, *_size_and_age(path)) for path in paths)
            if name in self._rows and self._rows[name][0] == seen:
                return self._rows[name][1]
            rows = np.concatenate([np.zeros(0, ROW), *map(_read, paths)])
            self._rows[name] = (seen, rows)
            return rows
        return np.zeros(0, ROW)


def _size_and_age(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _read(path: Path) -> Rows:
    with open(path, "rb") as file:
        return read_rows(file.fileno())
