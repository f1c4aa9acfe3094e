"""Sizes and durations as people write them: `256MiB`, `5m`, `1h`, `24h`, or plain numbers."""

from __future__ import annotations

import re
from math import inf, isfinite

from thinkonce.errors import ConfigError

__all__ = ("parse_bytes", "parse_seconds")

_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {
    "": 1, "b": 1,
    "k": 1000, "kb": 1000, "kib": 1024,
    "m": 1000**2, "mb": 1000**2, "mib": 1024**2,
    "g": 1000**3, "gb": 1000**3, "gib": 1024**3,
    "t": 1000**4, "tb": 1000**4, "tib": 1024**4,
}  # fmt: skip
_NUMBER_UNIT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", re.ASCII)


def parse_seconds(value: object, setting: str = "seconds") -> float:
    """Seconds >= 0 from a number or a text such as `90`, `1.5s`, `5m`, `1h`, `7d`.

    Raises ConfigError naming `setting`. Infinity is allowed as a number: no expiry.
    """
    accepts = "seconds >= 0, or a text such as 90s, 5m, 1h, 7d"
    seconds = _scaled(value, _SECONDS)
    if seconds is None or seconds < 0 or seconds != seconds:
        raise ConfigError(setting, value, accepts)
    return seconds


def parse_bytes(value: object, setting: str = "bytes") -> int:
    """Whole bytes > 0 from a number or a text such as `256MiB`. Raises ConfigError."""
    size = _scaled(value, _BYTES)
    if size is None or not isfinite(size) or size < 1:
        raise ConfigError(setting, value, "bytes > 0, or a text such as 512KiB, 256MiB, 1GiB")
    return int(size)


def _scaled(value: object, units: dict[str, float] | dict[str, int]) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        try:
            return float(value) if abs(value) != inf or value > 0 else None
        except OverflowError:  # JSON knows no largest integer
            return None
    match = _NUMBER_UNIT.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[2].lower() not in units:
        return None
    return float(match[1]) * units[match[2].lower()]
