"""From a store URL to an open tier."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import apsw

from thinkonce.clock import SYSTEM, Clock
from thinkonce.errors import ConfigError
from thinkonce.host.mapfile import HostFile
from thinkonce.tiers.breaker import Breaker
from thinkonce.tiers.schema import check_file
from thinkonce.tiers.sqlite import SqliteTier
from thinkonce.tiers.tier import TierStats

if TYPE_CHECKING:
    from thinkonce.tiers.cipher import Cipher

__all__ = ("Store", "check_store_file", "open_store", "store_path")

ACCEPTS = "memory://, sqlite:///relative.db or sqlite:////absolute.db"
LATER = ("redis", "rediss", "redis+cluster")
DEFAULT_BYTES = 2**30


class Store(Breaker):
    """The persistent tier behind its circuits, and its purge log."""

    def __init__(self, tier: SqliteTier, clock: Clock) -> None:
        super().__init__(tier, clock)
        self.path, self.purges = tier.path, tier.purges
        self.tidy, self.settled, self.savings = tier.tidy, tier.settled, tier.savings
        self.questions = tier.questions
        self.forget_unreadable = tier.forget_unreadable
        self._sized = tier

    @property
    def max_bytes(self) -> int:
        return self._sized.max_bytes

    def resize(self, max_bytes: int) -> None:
        self._sized.resize(max_bytes)

    def bytes_of(self, tenant: str) -> int:
        return self._sized.bytes_of(tenant)

    def counted(self) -> TierStats:
        return self._sized.counted()


def store_path(url: str) -> Path:
    """The file that `url` names, absolute. Raises ConfigError for any other kind of URL."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        meant = f"; did you mean sqlite:///{url}?" if url else ""
        raise ConfigError("store", url, ACCEPTS + meant)
    if scheme in LATER:
        raise ConfigError("store", url, f"{ACCEPTS}; Redis stores are not built yet")
    name = rest.removeprefix("/")
    if scheme != "sqlite" or not rest.startswith("/") or not name or "\0" in name:
        raise ConfigError("store", url, ACCEPTS)
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
    return Store(tier, clock)
