"""A small file that is there as a whole or not at all, and is believed only if it is as written.

    thinkonce fidelity 1 <fingerprint> <digest>\\n      of the form and of what follows, keyed
    what follows

Whoever writes does so alone, over what the others wrote. A process that dies meanwhile leaves the
file as it was, and a beginning of a new one that the next writer writes over.
"""

from __future__ import annotations

import fcntl
import hmac
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

from thinkonce.kv.disk.folder import sync_folder

__all__ = ("WholeFile",)

_logger = logging.getLogger("thinkonce.kv")


class WholeFile:
    """`form`: what is in it, in words, and whose; a file of another form is no file. `key`: of the
    folder. Used by one thread; several processes may have one file.
    """

    def __init__(self, path: Path, form: str, key: bytes) -> None:
        self._path, self._form, self._key = path, form.encode(), key

    def read(self) -> bytes | None:
        """None where there is none, of this form and as it was written; the log says so once it
        is read, and nothing is removed.
        """
        try:
            return self._opened(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            _logger.warning("%s is left aside: %s", self._path, error)
            return None

    def update(self, change: Callable[[bytes | None], bytes]) -> None:
        """Write what `change` makes of what is there. Raises OSError, and is as it was then."""
        with self._alone():
            body = change(self.read())
            new = self._path.with_suffix(".new")
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as file:
                file.write(b"%b %b\n" % (self._form, self._digest(body)) + body)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        sync_folder(self._path.parent)

    def _opened(self, data: bytes) -> bytes:
        """Raises ValueError."""
        head, _, body = data.partition(b"\n")
        form, _, digest = head.rpartition(b" ")
        if form != self._form:
            raise ValueError("it is of another form or model")
        if not hmac.compare_digest(digest, self._digest(body)):
            raise ValueError("it is not as it was written")
        return body

    def _digest(self, body: bytes) -> bytes:
        hashed = blake2b(self._form + b"\n" + body, key=self._key, digest_size=32)
        return hashed.hexdigest().encode()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process writes it meanwhile."""
        lock = self._path.with_suffix(".lock")
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
