"""What `doctor` checks of a store: its file, its content, its secret."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from thinkonce.cli.examine import Finding, Grade
from thinkonce.cli.gateway_view import GatewayView
from thinkonce.cli.output import show_bytes, show_count
from thinkonce.cli.store_view import StoreFileView, file_of
from thinkonce.errors import ConfigError, ThinkOnceError, TierError
from thinkonce.insight.apart import Apart, advice
from thinkonce.request.secret import fingerprint, load_secret, secret_path
from thinkonce.settings import Store
from thinkonce.stores import kind_of
from thinkonce.tiers.keyring import SETTING, cipher_of, keys_of

__all__ = ("compared", "no_room_in", "secret", "store_file")

OWNER_ONLY = 0o600


def store_file(store: Store) -> Iterator[Finding]:
    path = file_of(store)
    if path is None:
        yield Finding("store", Grade.NOTE, "memory only: answers end with the process", "--store")
    elif not path.exists():
        yield _place_for(path)
    else:
        yield _access(path)
        with suppress(ConfigError):  # keys that cannot be used: `readiness` says so
            cipher_of(keys_of(store), "sqlite")
            yield from _content(path, store)


def _place_for(path: Path) -> Finding:
    """A store that is not there yet can be made if the nearest folder above it takes a file."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if cause := no_room_in(folder):
        todo = f"make {folder} a folder you can write to, or name another place with --store"
        return Finding("store", Grade.BAD, f"{path} cannot be made ({cause})", todo)
    return Finding("store", Grade.NOTE, f"{path} is not there yet; it is made when first used")


def no_room_in(folder: Path) -> str:
    """Why no file can be made in `folder`; "" if it can. Rights alone do not tell: root has all."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def _access(path: Path) -> Finding:
    free = shutil.disk_usage(path.parent).free
    if not os.access(path, os.R_OK | os.W_OK) or not os.access(path.parent, os.W_OK):
        todo = f"chown or chmod {path} and its folder, or name another place with --store"
        return Finding("store", Grade.BAD, f"{path} cannot be written", todo)
    return Finding("store", Grade.GOOD, f"{path}, {show_bytes(free)} free on its disk")


def _content(path: Path, store: Store) -> Iterator[Finding]:
    """What the file holds; nothing where it cannot be read at all, which `_access` has said."""
    if not os.access(path, os.R_OK):
        return
    try:
        with StoreFileView(store) as view:
            verdict = view.verdict()
            if verdict == "ok":
                yield Finding("store integrity", Grade.GOOD, verdict)
                yield from _entries(view, store)
                return
    except ConfigError as error:
        todo = f"name another place with --store, or move {path} elsewhere"
        yield Finding("store integrity", Grade.BAD, str(error), todo)
        return
    except TierError as error:
        verdict = str(error)
    aside = f"move {path} aside: a new, empty one is made, and what is in this one is lost"
    yield Finding("store integrity", Grade.BAD, verdict, aside)


def _entries(view: StoreFileView, store: Store) -> Iterator[Finding]:
    found = view.stats()
    full = found["bytes"] / store.max_bytes
    says = f"{show_count(found['entries'])}, {show_bytes(found['bytes'])}, {full:.0%} of max_bytes"
    unreadable = _key_missing(view, store)
    if unreadable is None and view.is_readable():
        yield Finding("store content", Grade.GOOD, says)
        if "apart" in found:
            for line, todo in advice(msgspec.convert(found["apart"], Apart)):
                yield Finding("hit rate", Grade.NOTE, line, todo)
        yield from _encryption(view, store)
        return
    if unreadable is not None:
        yield Finding("store content", Grade.GOOD, says)
        yield unreadable
        return
    ours = "THINKONCE_STORE_SECRET" if store.secret else str(secret_path(Path(view.place)))
    todo = f"put that secret back ({ours}), or they are misses until they are evicted"
    yield Finding("store content", Grade.BAD, f"{says}; made with another secret", todo)


def _key_missing(view: StoreFileView, store: Store) -> Finding | None:
    """Entries that none of the configured keys opens; with them a gateway does not start."""
    _, held = view.settled()
    cipher = cipher_of(keys_of(store), "sqlite")
    unknown = sorted(held.keys() - {"", *(cipher.ids if cipher else ())})
    if not unknown:
        return None
    count = show_count(sum(held[key] for key in unknown))
    says = f"{count} encrypted with key {', '.join(unknown)}, which is not configured"
    todo = f"put that key behind the others ({SETTING}), or `thinkonce encrypt --forget`"
    return Finding("encryption", Grade.BAD, says, todo)


def _encryption(view: StoreFileView, store: Store) -> Iterator[Finding]:
    """With a key: whether all is encrypted with it, and nothing plain is left in the files."""
    cipher = cipher_of(keys_of(store), "sqlite")
    if cipher is None:
        return
    how, held = view.settled()
    older = sum(held.values()) - held.get("", 0) - held.get(cipher.ids[0], 0)
    if held.get(""):
        says = f"{show_count(held[''])} plain"
        yield Finding("encryption", Grade.BAD, says, "thinkonce encrypt")
    elif older:
        says = f"{show_count(older)} encrypted with an older key"
        yield Finding("encryption", Grade.NOTE, says, "thinkonce encrypt")
    elif how != cipher.ids[0]:
        says = "all entries are encrypted; free pages of the file may hold older text"
        yield Finding("encryption", Grade.NOTE, says, "thinkonce encrypt")
    else:
        yield Finding("encryption", Grade.GOOD, f"all of it, with key {cipher.ids[0]}")
    for aside in sorted(Path(view.place).parent.glob(f"{Path(view.place).name}.corrupt-*")):
        says = f"{aside} was moved aside and may hold plain text"
        yield Finding("encryption", Grade.NOTE, says, "remove it once nobody needs it")


def secret(store: Store) -> Iterator[Finding]:
    path = file_of(store)
    if store.secret:
        yield Finding("secret", Grade.GOOD, f"configured, {fingerprint(load_secret(store.secret))}")
        return
    if path is None:
        return
    file = secret_path(path)
    if not file.exists():
        yield Finding("secret", Grade.NOTE, f"{file} is not there; it is made when first used")
        return
    mode = stat.S_IMODE(file.stat().st_mode)
    if os.name == "posix" and mode & ~OWNER_ONLY:
        says = f"{file} has mode {mode:04o}: others can read it"
        yield Finding("secret", Grade.BAD, says, f"chmod 600 {file}")
    try:
        yield Finding("secret", Grade.GOOD, f"{file}, {fingerprint(load_secret(path=file))}")
    except ThinkOnceError as error:
        yield Finding(
            "secret", Grade.BAD, str(error), f"restore {file}, or remove store and secret"
        )


def compared(store: Store, other: str, token: str) -> Finding:
    """Whether `other`, a gateway's URL or a store's, hashes with the same secret."""
    try:
        ours, theirs = _fingerprint_of(store), _fingerprint_at(other, token)
    except ThinkOnceError as error:
        return Finding("compare", Grade.BAD, str(error), "name a store or a gateway that is there")
    if ours != theirs:
        todo = "give both the same secret: THINKONCE_STORE_SECRET, or a copy of the .secret file"
        return Finding("compare", Grade.BAD, f"{ours} here, {theirs} at {other}", todo)
    return Finding("compare", Grade.GOOD, f"the same secret at {other} ({ours})")


def _fingerprint_at(other: str, token: str) -> str:
    if other.startswith(("http://", "https://")):
        with GatewayView(other, token) as view:
            return str(view.stats().get("secret") or "an unknown secret")
    kind_of(other, "--compare")
    return _fingerprint_of(Store(url=other))


def _fingerprint_of(store: Store) -> str:
    path = file_of(store)
    if store.secret or path is None:
        return fingerprint(load_secret(store.secret))
    file = secret_path(path)
    return fingerprint(load_secret(path=file)) if file.exists() else "no secret"
