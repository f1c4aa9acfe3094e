"""The folders of models below the one that `[kv] store` names: how large, how old, and removed.

A model whose weights, number type, chunk length or releases changed has another fingerprint, hence
another folder; the old one is nobody's. A folder is in use while a server holds the lock of one of
its writers, and no server can begin in it between that look and its removal (`settled`).
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from thinkonce.clock import SYSTEM, Clock
from thinkonce.errors import ConfigError, RequestError, ThinkOnceError
from thinkonce.kv.disk.folder import DROPPED, OWNERS_KEY, is_fingerprint, is_lock, settled
from thinkonce.kv.disk.sealing import FOLDER_KEY

__all__ = (
    "MODEL_FILE",
    "InUse",
    "ModelFolder",
    "check_root",
    "chosen",
    "drop",
    "in_use",
    "model_folders",
    "said_of",
    "shown_model",
)

MODEL_FILE = "model.json"
_LEAST_DIGITS = 8


class InUse(ThinkOnceError):
    """A running server uses what should be removed."""


class ModelFolder(msgspec.Struct, frozen=True):
    """`name` is what the model was served as, "" where an earlier release wrote it; `kind` tells
    family, number type, tokens a block and codec, "" where that cannot be read. `bytes` of all
    its files, `age` in seconds since the last of them was written.
    """

    fingerprint: str
    name: str
    kind: str
    bytes: int
    age: float
    in_use: bool


def check_root(root: Path, setting: str) -> None:
    """Raises ConfigError for what no server wrote."""
    if not any((root / key).exists() for key in (OWNERS_KEY, FOLDER_KEY)):
        accepts = "a folder that `thinkonce serve-model --kv-store DIR` wrote"
        raise ConfigError(setting, str(root), accepts)


def model_folders(root: Path, clock: Clock = SYSTEM) -> list[ModelFolder]:
    """The largest first. Nothing is changed. Raises OSError for a root that cannot be read."""
    paths = [path for path in root.iterdir() if is_fingerprint(path.name)]
    found = [_told(path, clock.wall()) for path in paths]
    return sorted(found, key=lambda folder: (-folder.bytes, folder.fingerprint))


def chosen(folders: list[ModelFolder], digits: str) -> ModelFolder:
    """The one whose fingerprint begins so. Raises RequestError unless there is exactly one."""
    alike = [each for each in folders if each.fingerprint.startswith(digits.lower())]
    if len(digits) < _LEAST_DIGITS or len(alike) != 1:
        accepts = f"{_LEAST_DIGITS} or more digits that one model of `kv models` begins with"
        raise RequestError("MODEL", digits, accepts)
    return alike[0]


def drop(root: Path, fingerprint: str) -> None:
    """Remove a model's folder with all that is in it, and what removals that were cut off left.

    It goes as a whole: whatever happens meanwhile, no server finds half of it. Raises InUse, and
    OSError where the system refuses.
    """
    path = root / fingerprint
    aside = root / f"{DROPPED}{secrets.token_hex(8)}"
    with settled(root):
        if _in_use(path):
            raise in_use(path)
        path.rename(aside)
    for left in root.glob(f"{DROPPED}*"):
        shutil.rmtree(left, ignore_errors=left != aside)


def in_use(path: Path) -> InUse:
    """What to raise where that model's folder is."""
    return InUse(f"a running server uses {path}; end that first")


def shown_model(told: dict[str, Any]) -> str:
    """The name and the kind, as far as they are known."""
    return ", ".join(filter(None, (str(told.get("model", "")), _kind(told))))


def _kind(told: dict[str, Any]) -> str:
    with suppress(msgspec.DecodeError, KeyError, TypeError):
        config = msgspec.json.decode(str(told["config"]), type=dict[str, object])
        kind, codec = f"{config['model_type']}, {told['dtype']}", told.get("codec", "raw")
        return f"{kind}, {told['chunk_tokens']} tokens a block, {codec}"
    return ""


def said_of(path: Path) -> dict[str, Any]:
    """What lies in a model's folder about it; nothing where that cannot be read."""
    with suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode((path / MODEL_FILE).read_bytes(), type=dict[str, Any])
    return {}


def _told(path: Path, now: float) -> ModelFolder:
    said, size, written = said_of(path), 0, 0.0
    for file in _files(path):
        with suppress(FileNotFoundError):  # a server moves and removes files meanwhile
            found = file.stat()
            size, written = size + found.st_size, max(written, found.st_mtime)
    name = str(said.get("model", ""))
    age = max(0.0, now - written)
    return ModelFolder(path.name, name, _kind(said), size, age, _in_use(path))


def _files(path: Path) -> Iterator[Path]:
    with suppress(FileNotFoundError):
        yield from path.iterdir()


def _in_use(path: Path) -> bool:
    """Whether a process writes there. A lock that is looked at is held for no longer than that."""
    return any(_is_held(file) for file in _files(path) if is_lock(file.name))


def _is_held(lock: Path) -> bool:
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
