"""What `doctor` checks of a store: its file, its content, its secret."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import apsw

from thinkonce.cli.examine import Finding, Grade
from thinkonce.cli.gateway_view import GatewayView
from thinkonce.cli.output import show_bytes
from thinkonce.cli.store_view import StoreFileView, file_of
from thinkonce.errors import ThinkOnceError
from thinkonce.request.secret import fingerprint, load_secret, secret_path
from thinkonce.settings import Store
from thinkonce.settings.check import check_store_url

__all__ = ("compared", "secret", "store_file")

OWNER_ONLY = 0o600


def store_file(store: Store) -> Iterator[Finding]:
    path = file_of(store)
    if path is None:
        yield Finding("store", Grade.NOTE, "memory only: answers end with the process", "--store")
        return
    if not path.exists():
        yield _place_for(path)
        return
    yield _access(path)
    yield from _content(path, store)


def _place_for(path: Path) -> Finding:
    """A store that is not there yet can be made if the nearest folder above it can be written."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        todo = f"make {folder} a folder you can write to, or name another place with --store"
        return Finding("store", Grade.BAD, f"{path} cannot be made", todo)
    return Finding("store", Grade.NOTE, f"{path} is not there yet; it is made when first used")


def _access(path: Path) -> Finding:
    free = shutil.disk_usage(path.parent).free
    if not os.access(path, os.R_OK | os.W_OK) or not os.access(path.parent, os.W_OK):
        todo = f"chown or chmod {path} and its folder, or name another place with --store"
        return Finding("store", Grade.BAD, f"{path} cannot be written", todo)
    return Finding("store", Grade.GOOD, f"{path}, {show_bytes(free)} free on its disk")


def _content(path: Path, store: Store) -> Iterator[Finding]:
    aside = f"move {path} aside: a new one is made, and its answers with it"
    try:
        verdict = _quick_check(path)
    except apsw.Error as error:
        yield Finding("store integrity", Grade.BAD, f"not a database: {error}", aside)
        return
    good = verdict == "ok"
    grade = Grade.GOOD if good else Grade.BAD
    yield Finding("store integrity", grade, verdict, "" if good else aside)
    if not good:
        return
    try:
        with StoreFileView(store) as view:
            found = view.stats()
    except ThinkOnceError as error:
        yield Finding("store content", Grade.BAD, str(error), aside)
        return
    full = found["bytes"] / store.max_bytes
    says = f"{found['entries']} entries, {show_bytes(found['bytes'])}, {full:.0%} of max_bytes"
    yield Finding("store content", Grade.GOOD, says)


def _quick_check(path: Path) -> str:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        connection.set_busy_timeout(5000)
        return str(connection.execute("PRAGMA quick_check(1)").get)
    finally:
        connection.close()


def secret(store: Store) -> Iterator[Finding]:
    path = file_of(store)
    if store.secret:
        yield Finding("secret", Grade.GOOD, f"configured, {fingerprint(load_secret(store.secret))}")
        return
    if path is None:
        return
    file = secret_path(path)
    if not file.exists():
        yield Finding("secret", Grade.NOTE, f"{file} is not there yet; it is made when first used")
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
    check_store_url("--compare", other)
    return _fingerprint_of(Store(url=other))


def _fingerprint_of(store: Store) -> str:
    path = file_of(store)
    if store.secret or path is None:
        return fingerprint(load_secret(store.secret))
    file = secret_path(path)
    return fingerprint(load_secret(path=file)) if file.exists() else "no secret"
