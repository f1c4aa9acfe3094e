"""Times and sizes as people write them: `5m`, `24h`, `256MiB`."""

from __future__ import annotations

import re
from math import isfinite

from thinkonce.errors import ConfigError

__all__ = ("SIZES", "TIMES", "read_bytes", "read_seconds", "show_bytes", "show_seconds")

TIMES = "seconds, or a number with ms, s, m, h, d or w, such as 90, 5m or 24h"
SIZES = "bytes, or a number with KB, MB, GB, KiB, MiB or GiB, such as 256MiB"

_SECONDS = {"": 1.0, "ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_BYTES: dict[str, float] = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.ASCII)


def read_seconds(setting: str, value: object) -> float:
    """`value` in seconds, >= 0. Raises ConfigError naming `setting`."""
    return _read(setting, value, _SECONDS, TIMES)


def read_bytes(setting: str, value: object) -> int:
    """`value` in whole bytes, >= 0. Raises ConfigError naming `setting`."""
    return int(_read(setting, value, _BYTES, SIZES))


def _read(setting: str, value: object, units: dict[str, float], accepts: str) -> float:
    number = value
    if isinstance(value, str):
        match = _QUANTITY.fullmatch(value.strip().lower())
        if match and match[2] in units:
            number = float(match[1]) * units[match[2]]
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise ConfigError(setting, value, accepts)
    if number < 0 or not isfinite(number):
        raise ConfigError(setting, value, accepts)
    return number


def show_seconds(seconds: float) -> str:
    """The shortest exact form: 3600 -> "1h", 90 -> "90s"."""
    for unit in ("d", "h", "m"):
        if seconds and seconds % _SECONDS[unit] == 0:
            return f"{seconds / _SECONDS[unit]:g}{unit}"
    return f"{seconds:g}s"


def show_bytes(count: float) -> str:
    """Three digits at most: 268435456 -> "256MiB"."""
    for unit in ("GiB", "MiB", "KiB"):
        if count >= _BYTES[unit.lower()]:
            return f"{count / _BYTES[unit.lower()]:.3g}{unit}"
    return f"{count:g}B"
