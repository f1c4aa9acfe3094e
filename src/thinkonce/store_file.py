"""What stands behind a cache whose answers lie in a file.

FILE            the answers
FILE.secret     the installation's secret, 0600
FILE.host       purge epoch and flights of this host
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from thinkonce.backing import Backing, flight_codec, secret_of
from thinkonce.clock import Clock
from thinkonce.errors import ConfigError, TierError
from thinkonce.flights.singleflight import Flights
from thinkonce.host.mapfile import HostFile, host_path
from thinkonce.request.secret import keep_secret, secret_path
from thinkonce.tiers.keyring import Keyring, cipher_of
from thinkonce.tiers.sqlite import SqliteTier
from thinkonce.tiers.store import Store, check_store_file, open_store, store_path

__all__ = ("StoreFile", "open_file", "open_sqlite")

# Seconds until an answer is in the store, as a rule: it commits in batches of 50 ms.
COMMITTED_WITHIN = 0.2


@dataclass(frozen=True, slots=True)
class StoreFile:
    """A store's file and what lies beside it, open."""

    secret: bytes
    host: HostFile
    store: Store  # the tier behind its circuits

    @property
    def tier(self) -> SqliteTier:
        return self.store.tier

    def close(self) -> None:
        self.store.close()
        self.host.close()


def open_sqlite(url: str, keys: Keyring, *, clock: Clock, max_bytes: int, lease: float) -> Backing:
    """A `backing.Opener`."""
    file = open_file(store_path(url), keys, clock=clock, max_bytes=max_bytes)
    flights = Flights(
        file.host,
        codec=flight_codec(file.secret),
        clock=clock,
        lease=lease,
        linger=COMMITTED_WITHIN,
    )
    return Backing(file.secret, file.store, file.tier.purges, flights, file.host)


def open_file(path: Path, keys: Keyring, *, clock: Clock, max_bytes: int) -> StoreFile:
    """Open the store at `path`; what is missing, its folder too, is made.

    Raises ConfigError naming the store, also one that `keys` do not open.
    """
    check_store_file(path)
    cipher = cipher_of(keys, "sqlite")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        secret = secret_of(keys, path)
        host = HostFile(host_path(path))
    except (OSError, TierError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__ or error
        wants = f"a path that this user may write, in a folder likewise ({cause}), or memory://"
        raise ConfigError("store", str(path), wants) from None
    try:
        store = open_store(
            path,
            secret=secret,
            clock=clock,
            max_bytes=max_bytes,
            host=host,
            # What is written from then on is of use only with the secret it is written with.
            when_gone=None if keys.secret else lambda: keep_secret(secret, secret_path(path)),
            cipher=cipher,
            check_key=keys.check,
        )
        return StoreFile(secret, host, store)
    except BaseException:
        host.close()
        raise
