"""Settings: defined once in `sections`, read and checked by `load`."""

from thinkonce.settings.folder import data_folder
from thinkonce.settings.load import Sources
from thinkonce.settings.sections import (
    Admin,
    CacheSection,
    Client,
    Data,
    Gateway,
    Kv,
    KvCodec,
    KvMethod,
    Local,
    Log,
    Namespace,
    Rates,
    Settings,
    Store,
    Tracing,
    TtlClass,
    Upstream,
    default_classes,
)

__all__ = (
    "Admin",
    "CacheSection",
    "Client",
    "Data",
    "Gateway",
    "Kv",
    "KvCodec",
    "KvMethod",
    "Local",
    "Log",
    "Namespace",
    "Rates",
    "Settings",
    "Sources",
    "Store",
    "Tracing",
    "TtlClass",
    "Upstream",
    "data_folder",
    "default_classes",
)
