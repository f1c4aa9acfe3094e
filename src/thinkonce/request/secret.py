"""The installation's secret: what keys, tenants and checksums are hashed with.

Losing it loses the cache, never the isolation: nothing stored under another secret is found.
"""

from __future__ import annotations

import logging
import os
import secrets
from contextlib import suppress
from pathlib import Path

from blake3 import blake3

from thinkonce.errors import ConfigError

__all__ = ("fingerprint", "keep_secret", "load_secret", "others_may_read", "secret_path")

log = logging.getLogger("thinkonce.store")

_BYTES = 32
_MIN_SETTING = 16  # characters
_CONTEXT = "thinkonce 2026-11-22 installation secret from a setting"


def secret_path(store: Path) -> Path:
    """The secret's file of a store: beside it, with `.secret` added to its name."""
    return store.with_name(store.name + ".secret")


def load_secret(setting: str = "", path: Path | None = None) -> bytes:
    """32 bytes: from `setting`, else from the file, created once, else random (memory only).

    Processes that start at once agree on one file. Raises ConfigError for a setting too short,
    a damaged file, or one that cannot be read or made.
    """
    if setting:
        return _from_setting(setting)
    if path is None:
        return secrets.token_bytes(_BYTES)
    try:
        if not path.exists():
            _create(path, secrets.token_hex(_BYTES))
        return _read(path)
    except OSError as error:
        accepts = f"a file that can be read and created ({error.strerror})"
        raise ConfigError("secret file", str(path), accepts) from error


def keep_secret(secret: bytes, path: Path) -> None:
    """Write `secret` to its file again, if that is gone. What the disk refuses is logged."""
    if path.exists():
        return
    try:
        _create(path, secret.hex())
    except OSError as error:
        log.warning("secret %s is gone and cannot be written again: %s", path, error)


def fingerprint(secret: bytes) -> str:
    """16 hex digits by which two installations see whether their secrets are the same."""
    return blake3(b"fingerprint", key=secret).hexdigest(length=8)


def others_may_read(path: Path) -> bool:
    """Whether the file's mode lets other users in; always False where modes mean nothing."""
    return os.name == "posix" and bool(path.stat().st_mode & 0o077)


def _from_setting(setting: str) -> bytes:
    if len(setting) < _MIN_SETTING:
        # The value itself stays out of the message: it is a secret.
        raise ConfigError("secret", "***", f"at least {_MIN_SETTING} characters")
    return blake3(setting.encode(), derive_key_context=_CONTEXT).digest()


def _read(path: Path) -> bytes:
    text = path.read_text("ascii", "replace").strip()
    with suppress(ValueError):
        secret = bytes.fromhex(text)
        if len(secret) == _BYTES:
            return secret
    raise ConfigError("secret file", str(path), f"{2 * _BYTES} hex digits; it holds something else")


def _create(path: Path, text: str) -> None:
    """Write the whole file under another name, then link it: nobody sees half a secret."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(8)}")
    try:
        _write_new(draft, text)
        with suppress(FileExistsError):  # another process was first: its secret counts
            _publish(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _write_new(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())


def _publish(draft: Path, path: Path) -> None:
    try:
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: exclusive creation is the next best
        _write_new(path, draft.read_text("ascii").strip())
