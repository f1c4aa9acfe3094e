"""The keys a store is encrypted with: read from a setting or a file, and made.

One key or several, separated by commas or white space, each of 32 bytes in hex or base64. The
first encrypts; all of them decrypt, so that a new key can be put in front of an old one.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
from binascii import Error as WrongBase64
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from thinkonce.errors import ConfigError
from thinkonce.request.secret import others_may_read

if TYPE_CHECKING:
    from thinkonce.settings import Store
    from thinkonce.tiers.cipher import Cipher

__all__ = (
    "FILE_SETTING",
    "KEY_BYTES",
    "NO_KEYS",
    "SETTING",
    "Keyring",
    "cipher_of",
    "keys_of",
    "make_key_file",
    "parse_keys",
)

KEY_BYTES = 32  # AES-256
SETTING, FILE_SETTING = "[store] encryption_key", "[store] encryption_key_file"
_ACCEPTS = (
    f"{KEY_BYTES} bytes in hex or base64 (`thinkonce encrypt --make-key FILE` makes a file), or "
    "several such keys, the new one first"
)
_HEX = re.compile(f"[0-9a-fA-F]{{{2 * KEY_BYTES}}}", re.ASCII)


@dataclass(frozen=True, slots=True, repr=False)
class Keyring:
    """What a store is opened with; its `repr` shows nothing of it.

    `secret` hashes; "" stands for the one beside a file, or a random one. Of `encryption` the
    first key seals and all of them open; without any, what is written is plain. `seals` False: to
    write what they open as plain text. `check` False: entries that they do not open are no reason
    to refuse a store.
    """

    secret: str = ""
    encryption: tuple[bytes, ...] = ()
    seals: bool = True
    check: bool = True


NO_KEYS = Keyring()


def keys_of(store: Store) -> Keyring:
    """Those of a store's settings. Raises ConfigError, which never shows a key."""
    return Keyring(store.secret, _encryption_of(store))


def _encryption_of(store: Store) -> tuple[bytes, ...]:
    text, file = store.encryption_key, store.encryption_key_file
    if text and file:
        raise ConfigError(FILE_SETTING, file, "either this or encryption_key, not both")
    if file:
        return _from_file(Path(file).expanduser())
    return parse_keys(text, SETTING) if text else ()


def parse_keys(text: str, setting: str = SETTING) -> tuple[bytes, ...]:
    """Raises ConfigError naming `setting` for what is no key, and for one given twice."""
    keys = tuple(_key(word, setting) for word in re.split(r"[\s,]+", text) if word)
    if not keys:
        raise ConfigError(setting, "***", _ACCEPTS)
    if len(set(keys)) < len(keys):
        raise ConfigError(setting, "***", "keys that differ: one of them is given twice")
    return keys


def cipher_of(keys: Keyring, tier: str) -> Cipher | None:
    """None without keys to encrypt with.

    Raises ConfigError where the package that encrypts is not installed.
    """
    if not keys.encryption:
        return None
    try:
        # Not at the top: it is an extra, and takes 50 ms to load.
        from thinkonce.tiers.cipher import Cipher
    except ModuleNotFoundError as error:
        accepts = f"pip install '/path/to/thinkonce[encryption]' ({error})"
        raise ConfigError(SETTING, "***", accepts) from None
    return Cipher(keys.encryption, tier, seals=keys.seals)


def make_key_file(path: Path) -> None:
    """Write a new key to a new file of mode 0600. Raises ConfigError if there is one already."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        accepts = f"a file that is not there yet and can be made ({error.strerror})"
        raise ConfigError("--make-key", str(path), accepts) from None
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(KEY_BYTES) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _from_file(path: Path) -> tuple[bytes, ...]:
    try:
        text = path.read_text("ascii", "replace")
        shown = others_may_read(path)
    except OSError as error:
        accepts = f"a file that this user may read ({error.strerror})"
        raise ConfigError(FILE_SETTING, str(path), accepts) from None
    if shown:
        accepts = f"a file that only its owner may read: chmod 600 {path}"
        raise ConfigError(FILE_SETTING, str(path), accepts)
    return parse_keys(text, FILE_SETTING)


def _key(word: str, setting: str) -> bytes:
    if _HEX.fullmatch(word):
        return bytes.fromhex(word)
    try:
        key = base64.b64decode(word.replace("-", "+").replace("_", "/") + "==")
    except (ValueError, WrongBase64):
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigError(setting, "***", _ACCEPTS)
    return key
