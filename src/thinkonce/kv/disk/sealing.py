"""What a folder is opened with: its secrets, and the form of what is written there.

    owners.key    of a plain folder: what hashes credentials and marks owners, 32 bytes
    folder.key    of a sealed one: that and what names go by, sealed with the installation's key

A new key in front of the old one seals `folder.key` anew at the start, and the records little by
little. The folder's own secrets stay, so names do.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from thinkonce.errors import MISSING, ConfigError, CorruptEntry, UnknownKey
from thinkonce.kv.disk.folder import OWNERS_KEY, kept_key, sync_folder
from thinkonce.kv.disk.record import Form, Plain
from thinkonce.kv.disk.sealed import Sealed
from thinkonce.kv.prefix.purges import PLAIN, Sealing
from thinkonce.tiers.cipher import Cipher
from thinkonce.tiers.keyring import FILE_SETTING, SETTING, Keyring, cipher_of

__all__ = ("FOLDER_KEY", "FolderKeys", "folder_keys")

FOLDER_KEY = "folder.key"
_SECRET_BYTES = 32
_STORE = "[kv] store"
_PURGES = "kv purges"


class FolderKeys(NamedTuple):
    """`owners` hashes credentials and marks owners. `sealing` is of the file of purges."""

    owners: bytes
    form: Form
    sealing: Sealing = PLAIN


def folder_keys(folder: Path, keys: Keyring) -> FolderKeys:
    """Made where the folder is new. Raises ConfigError for a key that is not this folder's, for
    none where it is sealed, and for one where it is plain; then nothing was changed.
    """
    try:
        cipher = cipher_of(keys, "kv")
        if cipher is not None:
            return _sealed(folder, cipher)
        if (folder / FOLDER_KEY).exists():
            raise ConfigError(SETTING, MISSING, _wanted(folder, folder / FOLDER_KEY))
    except OSError as error:
        accepts = f"a folder that this user may write ({error.strerror})"
        raise ConfigError(_STORE, str(folder), accepts) from None
    return FolderKeys(kept_key(folder, _STORE), Plain())


def _sealed(folder: Path, cipher: Cipher) -> FolderKeys:
    path = folder / FOLDER_KEY
    if not path.exists():
        _begin(folder, path, cipher)
    sealed = path.read_bytes()
    try:
        secret = cipher.open("kv folder", b"", sealed)
    except UnknownKey:
        shown = ", ".join(cipher.ids)
        raise ConfigError(SETTING, f"key {shown}", _wanted(folder, path)) from None
    except CorruptEntry:
        accepts = f"a folder whose {FOLDER_KEY} is as it was written; remove this one"
        raise ConfigError(_STORE, str(folder), accepts) from None
    if not cipher.is_first(sealed):
        _write(path, cipher.seal("kv folder", b"", secret), Path.replace)
    owners, names = secret[:_SECRET_BYTES], secret[_SECRET_BYTES:]

    def opened(data: bytes) -> bytes:
        try:
            return cipher.open(_PURGES, b"", data)
        except CorruptEntry as error:
            raise ValueError(str(error)) from error

    def seal(data: bytes) -> bytes:
        return cipher.seal(_PURGES, b"", data)

    return FolderKeys(owners, Sealed(cipher, names), Sealing(seal, opened, cipher.is_first))


def _begin(folder: Path, path: Path, cipher: Cipher) -> None:
    if (folder / OWNERS_KEY).exists():
        accepts = "another folder, or remove what is in this one: it was written without a key"
        raise ConfigError(_STORE, str(folder), f"{accepts}, and {SETTING} is set now")
    made = secrets.token_bytes(2 * _SECRET_BYTES)
    with suppress(FileExistsError):  # another process was first
        _write(path, cipher.seal("kv folder", b"", made), os.link)


def _write(path: Path, data: bytes, put: Callable[[Path, Path], object]) -> None:
    """Whole or not at all."""
    made = path.with_suffix(f".{secrets.token_hex(8)}")
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        put(made, path)
    finally:
        made.unlink(missing_ok=True)
    sync_folder(path.parent)


def _wanted(folder: Path, path: Path) -> str:
    key = path.read_bytes()[:4].hex()
    which = f"the key {key}: {folder} is sealed with it"
    return f"{which}, in {SETTING} or {FILE_SETTING}, behind a newer one; or another folder"
