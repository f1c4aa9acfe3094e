"""What stands behind a cache, opened from one store URL: secret, tier, purge log, flights.

memory://            a random secret, purges and flights of this process only
sqlite:///FILE       see `store_file`
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import msgspec

from thinkonce.clock import Clock
from thinkonce.entry import Form
from thinkonce.errors import ConfigError, CorruptEntry
from thinkonce.flights.singleflight import Codec as FlightCodec
from thinkonce.flights.singleflight import Flights
from thinkonce.host.mapfile import HostFile
from thinkonce.outcome import Reason
from thinkonce.request.secret import load_secret, secret_path
from thinkonce.steps import Answer, Made
from thinkonce.stores import IN_MEMORY, kind_of
from thinkonce.tiers.codec import Codec
from thinkonce.tiers.keyring import NO_KEYS, Keyring
from thinkonce.tiers.purges import LocalPurges, PurgeLog
from thinkonce.tiers.tier import Key, StoreTier
from thinkonce.values import Kept, persistable, revive

__all__ = ("Backing", "Opener", "flight_codec", "in_memory", "open_backing", "secret_of")

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


class Opener(Protocol):
    """What opens one kind of store. Raises ConfigError naming the store or the secret."""

    def __call__(
        self, url: str, keys: Keyring, *, clock: Clock, max_bytes: int, lease: float
    ) -> Backing: ...


def open_backing(
    url: str | None, keys: Keyring = NO_KEYS, *, clock: Clock, max_bytes: int, lease: float
) -> Backing:
    """Open what `url` names; None or `memory://` for nothing outside this process.

    Raises ConfigError naming the store or the secret and what would work.
    """
    url = IN_MEMORY if url is None else url
    module, _, name = kind_of(url).opener.partition(":")
    opener: Opener = getattr(import_module(module), name)
    return opener(url, keys, clock=clock, max_bytes=max_bytes, lease=lease)


def in_memory(url: str, keys: Keyring, *, clock: Clock, max_bytes: int, lease: float) -> Backing:
    """An `Opener`."""
    flights = Flights(clock=clock, lease=lease)
    return Backing(secret_of(keys), None, LocalPurges(), flights)


def secret_of(keys: Keyring, store: Path | None = None) -> bytes:
    """The one configured; else that beside the file `store`, or a random one."""
    # Not at the top: a cache without a secret of its own should not load the settings.
    if keys.secret:
        from thinkonce.settings.check import LEAST_SECRET

        if len(keys.secret) < LEAST_SECRET:  # the value itself stays out of the message
            raise ConfigError("secret", "***", f"{LEAST_SECRET} characters or more")
    return load_secret(keys.secret, None if store is None else secret_path(store))


def flight_codec(secret: bytes) -> FlightCodec:
    """How results reach followers in other processes that have the same secret."""
    crossing = Crossing(Codec(secret, CROSSING))
    return FlightCodec(crossing.encode, crossing.decode)


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
