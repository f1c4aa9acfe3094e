"""What audits have taught, kept over a restart: where each namespace stands, and why.

A namespace goes by a keyed hash, so the file names nobody and holds no text. Of several processes
on one folder each begins with what the file says, and writes over it what it audited itself: of a
namespace that two of them audit, the one that wrote last is believed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Protocol

import msgspec

from thinkonce.clock import Clock
from thinkonce.kv.reuse.taught import Taught

__all__ = ("File", "Remembered", "Teachable")

_logger = logging.getLogger("thinkonce.kv")
_MOST_NAMESPACES = 1024  # in the file; those that were written last
_SECONDS = 60.0  # between two writes, but for alarms

_decode = msgspec.json.Decoder(dict[str, Taught]).decode


class Teachable(Protocol):
    """What is taught by audits."""

    def taught(self) -> Mapping[str, Taught]:
        """By namespace, as far as it was audited since the start."""
        ...

    def learn(self, taught: Mapping[str, Taught]) -> None:
        """Begin with that."""
        ...


class File(Protocol):
    """See `disk/whole_file.py`."""

    def read(self) -> bytes | None: ...

    def update(self, change: Callable[[bytes | None], bytes]) -> None: ...


class Remembered:
    """Takes it from the file at the start, and writes it there. Used by the model's thread, and
    after its end by whoever closes the engine.
    """

    def __init__(self, file: File, ways: Teachable, clock: Clock) -> None:
        self._file, self._ways, self._clock = file, ways, clock
        self._written, self._is_new = clock.monotonic(), False
        ways.learn(_read(file.read()))

    def audited(self, is_alarm: bool) -> None:
        """Something was learned. It is written within a minute of audits, and an alarm at once."""
        self._is_new = True
        if is_alarm or self._clock.monotonic() - self._written >= _SECONDS:
            self.save()

    def save(self) -> None:
        """Write what is new. What cannot be written is learned again after a restart."""
        if not self._is_new:
            return
        self._written, self._is_new = self._clock.monotonic(), False
        try:
            self._file.update(self._merged)
        except OSError as error:
            _logger.warning("what audits have taught is not written down: %s", error)

    def _merged(self, data: bytes | None) -> bytes:
        own = self._ways.taught()
        others = {name: each for name, each in _read(data).items() if name not in own}
        all_ = {**others, **own}
        first = max(0, len(all_) - _MOST_NAMESPACES)
        return msgspec.json.encode(dict(islice(all_.items(), first, None)))


def _read(data: bytes | None) -> Mapping[str, Taught]:
    """Nothing of what another release wrote in other words."""
    try:
        return {} if data is None else _decode(data)
    except msgspec.DecodeError as error:
        _logger.warning("what audits have taught is not understood: %s", error)
        return {}
