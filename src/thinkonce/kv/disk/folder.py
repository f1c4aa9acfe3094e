"""The folder of one model's blocks: who writes which files, and how they are called."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from thinkonce.errors import ConfigError
from thinkonce.kv.disk.manifest import Manifest
from thinkonce.kv.disk.rows import Foreign, is_ours
from thinkonce.kv.prefix.fingerprint import FINGERPRINT_BYTES

__all__ = (
    "DROPPED",
    "OWNERS_KEY",
    "Folder",
    "Lock",
    "is_fingerprint",
    "is_lock",
    "kept_key",
    "made_folder",
    "settled",
    "sync_folder",
)

_logger = logging.getLogger("thinkonce.kv")

OWNERS_KEY = "owners.key"
DROPPED = ".dropped-"
"""How a model's folder is called while it is removed."""
_SETTLED = "models.lock"
_KEY_BYTES = 32
_MOST_WRITERS = 9999
_ROWS = re.compile(r"(\d{4})\.rows", re.ASCII)
_LOCK = re.compile(r"(\d{4})\.lock", re.ASCII)
_SEGMENT = re.compile(r"(\d{4})-(\d{8})\.blocks", re.ASCII)
_FINGERPRINT = re.compile(rf"[0-9a-f]{{{2 * FINGERPRINT_BYTES}}}")


def made_folder(path: Path, setting: str) -> Path:
    """`path`, made where it is missing; for this user alone. Raises ConfigError."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.chmod(0o700)
    except OSError as error:
        accepts = f"a folder that this user may write ({error.strerror})"
        raise ConfigError(setting, str(path), accepts) from None
    return path


def kept_key(folder: Path, setting: str) -> bytes:
    """32 random bytes that lie in `folder`, made once. Raises ConfigError."""
    path = folder / OWNERS_KEY
    try:
        with suppress(FileExistsError):
            made = path.with_suffix(f".{secrets.token_hex(8)}")
            descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                os.write(descriptor, secrets.token_bytes(_KEY_BYTES))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            try:
                os.link(made, path)  # whole or not at all, whoever comes first
            finally:
                made.unlink()
        key = path.read_bytes()
    except OSError as error:
        accepts = f"a folder that this user may write ({error.strerror})"
        raise ConfigError(setting, str(folder), accepts) from None
    if len(key) != _KEY_BYTES:
        raise ConfigError(setting, str(folder), f"{path} of {_KEY_BYTES} bytes; remove it")
    return key


def sync_folder(path: Path) -> None:
    """What was made, renamed or removed there is so after a crash too. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_fingerprint(name: str) -> bool:
    """Whether a model's folder is called so."""
    return _FINGERPRINT.fullmatch(name) is not None


def is_lock(name: str) -> bool:
    """Whether a file of that name is held by who writes in a model's folder."""
    return _LOCK.fullmatch(name) is not None


@contextmanager
def settled(root: Path) -> Iterator[None]:
    """Meanwhile no other process begins to use a model's folder there, or removes one. Raises
    OSError.
    """
    path = root / _SETTLED
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class Lock:
    """Says that the files of one number are this process's to write, until it is released."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """Idempotent. The end of the process does it too."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Folder:
    """Methods raise OSError where the system refuses."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self, writer: int) -> Path:
        return self.path / f"{writer:04d}.rows"

    def segment(self, writer: int, number: int) -> Path:
        return self.path / f"{writer:04d}-{number:08d}.blocks"

    def size(self, writer: int, number: int) -> int:
        """Bytes of a segment; 0 for one that somebody removed."""
        try:
            return self.segment(writer, number).stat().st_size
        except FileNotFoundError:
            return 0

    def writers(self) -> list[int]:
        return sorted(found[0] for name in os.listdir(self.path) if (found := _read(_ROWS, name)))

    def segments(self, writer: int) -> Iterator[int]:
        for name in os.listdir(self.path):
            found = _read(_SEGMENT, name)
            if found and found[0] == writer:
                yield found[1]

    def remove(self, writer: int) -> None:
        """All its files but the lock, which the caller holds."""
        self.rows(writer).unlink(missing_ok=True)
        for number in list(self.segments(writer)):
            self.segment(writer, number).unlink(missing_ok=True)

    def lock_one(self) -> tuple[int, Lock, Manifest]:
        """A number whose files nobody writes, and its rows: one left behind if there is any, else
        a new one. What a later release wrote is left alone.
        """
        for writer in range(1, _MOST_WRITERS + 1):
            lock = self.lock(writer)
            if lock is None:
                continue
            try:
                return writer, lock, Manifest(self.rows(writer))
            except Foreign as form:
                lock.release()
                said = "%s is of a later release (%s) and is left alone"
                _logger.warning(said, self.rows(writer), form)
            except BaseException:
                lock.release()
                raise
        raise OSError(f"{self.path}: {_MOST_WRITERS} processes write there")

    def left(self, but: int, *, of_old: bool = False) -> Iterator[tuple[int, Manifest]]:
        """Rows of processes that have ended, locked until the next is asked for. `of_old`: of
        those alone that are not of today's form, which are by then.
        """
        for writer in self.writers():
            is_asked = writer != but and not (of_old and self._is_of_today(writer))
            lock = self.lock(writer) if is_asked else None
            if lock is None:
                continue
            try:
                manifest = Manifest(self.rows(writer))
            except Foreign:
                lock.release()
                continue
            except BaseException:
                lock.release()
                raise
            try:
                yield writer, manifest
            finally:
                manifest.close()
                lock.release()

    def _is_of_today(self, writer: int) -> bool:
        with open(self.rows(writer), "rb") as file:
            return is_ours(file.fileno())

    def lock(self, writer: int) -> Lock | None:
        """None while another process holds it."""
        path = self.path / f"{writer:04d}.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        return Lock(descriptor)

    def sync(self) -> None:
        """What was made, renamed or removed here is so after a crash too."""
        sync_folder(self.path)


def _read(pattern: re.Pattern[str], name: str) -> tuple[int, ...] | None:
    """The numbers in a file's name; None for a file that is not ours."""
    found = pattern.fullmatch(name)
    return None if found is None else tuple(map(int, found.groups()))
