"""Settings: defined once in `sections`, read and checked by `load`."""

from thinkonce.settings.sections import (
    Admin,
    CacheSection,
    Data,
    Gateway,
    Local,
    Log,
    Settings,
    Store,
    TtlClass,
    Upstream,
    default_classes,
)
from thinkonce.settings.units import read_bytes, read_seconds, show_bytes, show_seconds

__all__ = (
    "Admin",
    "CacheSection",
    "Data",
    "Gateway",
    "Local",
    "Log",
    "Settings",
    "Store",
    "TtlClass",
    "Upstream",
    "default_classes",
    "read_bytes",
    "read_seconds",
    "show_bytes",
    "show_seconds",
)
