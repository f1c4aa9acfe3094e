"""From a store URL to an open tier."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import apsw

from thinkonce.clock import SYSTEM, Clock
from thinkonce.errors import ConfigError
from thinkonce.host.mapfile import HostFile
from thinkonce.stores import KINDS, kind_of
from thinkonce.tiers.breaker import StoreBreaker
from thinkonce.tiers.schema import check_file
from thinkonce.tiers.sqlite import SqliteTier

if TYPE_CHECKING:
    from thinkonce.tiers.cipher import Cipher

__all__ = ("Store", "check_store_file", "open_store", "store_path")

DEFAULT_BYTES = 2**30


Store = StoreBreaker[SqliteTier]


def store_path(url: str) -> Path:
    """The file that `url` names, absolute. Raises ConfigError for any other kind of URL."""
    name = url.removeprefix("sqlite:///")
    if kind_of(url).place or "\0" in name:
        raise ConfigError("store", url, KINDS["sqlite"].accepts)
    path = Path(name).expanduser()
    try:
        is_folder = path.is_dir()
    except OSError as error:  # a name too long, a folder above it that may not be entered
        raise ConfigError("store", url, f"a path this user may look at ({error})") from None
    if is_folder:
        raise ConfigError("store", url, "a file; this is a folder")
    return path.absolute()


def check_store_file(path: Path) -> None:
    """Raise ConfigError for a file that is not a store of ours, and leave nothing beside it."""
    try:
        check_file(path)
    except (apsw.Error, OSError) as error:
        wants = f"a file that this user may read ({error})"
        raise ConfigError("store", str(path), wants) from None


def open_store(
    path: Path,
    *,
    secret: bytes,
    host: HostFile,
    clock: Clock = SYSTEM,
    max_bytes: int = DEFAULT_BYTES,
    when_gone: Callable[[], None] | None = None,
    cipher: Cipher | None = None,
    check_key: bool = True,
) -> Store:
    """Open the store at `path`, made if there is none; its folder too.

    `host` is the mapped file beside it and stays the caller's to close. `when_gone` is called when
    a store that somebody removed was begun anew. `check_key`: refuse a store with entries that
    `cipher` does not open. Raises ConfigError.
    """
    tier = SqliteTier(
        path,
        secret=secret,
        host=host,
        clock=clock,
        max_bytes=max_bytes,
        when_gone=when_gone,
        cipher=cipher,
        check_key=check_key,
    )
    return StoreBreaker(tier, clock)
