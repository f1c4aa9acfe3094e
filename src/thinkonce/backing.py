"""What stands behind a cache, opened from one store URL: secret, tier, purge log, flights.

memory://            a random secret, purges and flights of this process only
sqlite:///FILE       FILE            the answers
                     FILE.secret     the installation's secret, 0600
                     FILE.host       purge epoch and flights of this host
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from thinkonce.clock import Clock
from thinkonce.entry import Form
from thinkonce.errors import ConfigError, CorruptEntry, TierError
from thinkonce.host.mapfile import HostFile, host_path
from thinkonce.outcome import Reason
from thinkonce.request.secret import keep_secret, load_secret, secret_path
from thinkonce.singleflight import Codec as FlightCodec
from thinkonce.singleflight import Flights
from thinkonce.steps import Answer, Made
from thinkonce.tiers.codec import Codec
from thinkonce.tiers.keyring import cipher_of
from thinkonce.tiers.purges import LocalPurges, PurgeLog
from thinkonce.tiers.tier import Key, StoreTier
from thinkonce.values import Kept, persistable, revive

if TYPE_CHECKING:
    from thinkonce.tiers.store import Store

__all__ = ("Backing", "StoreFile", "open_backing", "open_file")

# Seconds until an answer is in the store, as a rule: it commits in batches of 20 ms.
COMMITTED_WITHIN = 0.2
CROSSING = "flight"  # the name errors give to bytes that came from another process
ITEM_FORMS = (bytes([Form.PLAIN]), bytes([Form.ENCODED]))


@dataclass(slots=True)
class Backing:
    """Owned by one cache. `tier` is None where answers live in memory only."""

    secret: bytes
    tier: StoreTier | None
    purges: PurgeLog
    flights: Flights
    host: HostFile | None = None

    def close(self) -> None:
        """Finish what is queued, then let go. Idempotent."""
        self.flights.close()
        if self.tier is not None:
            self.tier.close()
        if self.host is not None:
            self.host.close()


def open_backing(
    url: str | None,
    *,
    secret: str = "",
    encryption_keys: tuple[bytes, ...] = (),
    clock: Clock,
    max_bytes: int,
    lease: float,
) -> Backing:
    """Open what `url` names; None or `memory://` for nothing outside this process.

    `encryption_keys` of `tiers.keyring.read_keys`; what leaves the process is plain without any.
    Raises ConfigError naming the store or the secret and what would work.
    """
    if url is None or url == "memory://":
        flights = Flights(clock=clock, lease=lease)
        return Backing(_secret(secret), None, LocalPurges(), flights)
    # Not at the top: a cache in memory should not load SQLite.
    from thinkonce.tiers.store import store_path

    file = open_file(
        store_path(url),
        secret=secret,
        encryption_keys=encryption_keys,
        clock=clock,
        max_bytes=max_bytes,
    )
    crossing = Crossing(Codec(file.secret, CROSSING))
    codec = FlightCodec(crossing.encode, crossing.decode)
    flights = Flights(file.host, codec=codec, clock=clock, lease=lease, linger=COMMITTED_WITHIN)
    return Backing(file.secret, file.tier, file.tier.purges, flights, file.host)


@dataclass(frozen=True, slots=True)
class StoreFile:
    """A store's file and what lies beside it, open."""

    secret: bytes
    host: HostFile
    tier: Store

    def close(self) -> None:
        self.tier.close()
        self.host.close()


def open_file(
    path: Path,
    *,
    secret: str = "",
    encryption_keys: tuple[bytes, ...] = (),
    seals: bool = True,
    check_key: bool = True,
    clock: Clock,
    max_bytes: int,
) -> StoreFile:
    """Open the store at `path`; what is missing, its folder too, is made.

    `secret` "" stands for the file beside it. `seals` False: with keys, to write what they open
    as plain text. Raises ConfigError naming the store, also one that these keys do not open,
    unless `check_key` is False.
    """
    from thinkonce.tiers.store import check_store_file, open_store

    check_store_file(path)
    cipher = cipher_of(encryption_keys, "sqlite", seals=seals)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        key = _secret(secret, path)
        host = HostFile(host_path(path))
    except (OSError, TierError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__ or error
        wants = f"a path that this user may write, in a folder likewise ({cause}), or memory://"
        raise ConfigError("store", str(path), wants) from None
    try:
        tier = open_store(
            path,
            secret=key,
            clock=clock,
            max_bytes=max_bytes,
            host=host,
            # What is written from then on is of use only with the secret it is written with.
            when_gone=None if secret else lambda: keep_secret(key, secret_path(path)),
            cipher=cipher,
            check_key=check_key,
        )
        return StoreFile(key, host, tier)
    except BaseException:
        host.close()
        raise


def _secret(setting: str, store: Path | None = None) -> bytes:
    # Not at the top: a cache without a secret of its own should not load the settings.
    if setting:
        from thinkonce.settings.check import LEAST_SECRET

        if len(setting) < LEAST_SECRET:  # the value itself stays out of the message
            raise ConfigError("secret", "***", f"{LEAST_SECRET} characters or more")
    return load_secret(setting, None if store is None else secret_path(store))


class _Crossed(msgspec.Struct, array_like=True):
    digest: bytes
    entry: bytes
    refused: str = ""


class Crossing:
    """How the result of a call reaches followers in other processes: as a stored entry would."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def encode(self, result: object) -> bytes:
        """Raises TypeError for what only this process can hold; followers then call themselves.

        An item of a stream is its form, a number that no encoded result begins with, and its bytes.
        """
        if isinstance(result, Kept):
            form = Form.PLAIN if result.form == Form.PLAIN else Form.ENCODED
            return bytes([form]) + persistable(result)
        if not isinstance(result, Made | Answer) or result.entry is None:
            raise TypeError(f"a {type(result).__name__} cannot leave the process")
        entry, refused = result.entry, result.refused or ""
        return msgspec.msgpack.encode(
            _Crossed(entry.digest, self._codec.encode(entry.digest, entry), refused)
        )

    def decode(self, raw: bytes) -> Made | Kept:
        """Raises CorruptEntry for bytes that no process of this installation wrote."""
        if raw[:1] in ITEM_FORMS:
            payload, thaw = revive(raw[0], raw[1:])
            return Kept(raw[0], payload, thaw, len(raw))
        try:
            crossed = msgspec.msgpack.decode(raw, type=_Crossed)
        except msgspec.MsgspecError as error:
            raise CorruptEntry(CROSSING, "reading another process's answer") from error
        entry: Any = self._codec.decode(Key(None, crossed.digest), crossed.entry)
        return Made(None, entry, Reason(crossed.refused) if crossed.refused else None)
