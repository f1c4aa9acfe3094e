"""Which kind of store a URL names. A new kind is one new file, and one line in `KINDS`.

What opens a store is imported when it is first used: a cache in memory should load no database.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from thinkonce.errors import ConfigError

__all__ = ("ACCEPTS", "IN_MEMORY", "KINDS", "Kind", "kind_of")

IN_MEMORY = "memory://"
# Not built yet.
LATER = ("redis", "rediss", "redis+cluster")


@dataclass(frozen=True, slots=True)
class Kind:
    """`accepts` says what its URLs look like, `pattern` matches them.

    `opener`: the `backing.Opener`, as "module:function". `is_shared`: several processes see what
    lies there. `place`: where answers lie, in words; "": in a file, see `tiers.store.store_path`.
    """

    accepts: str
    pattern: str
    opener: str
    is_shared: bool = True
    place: str = ""


_FILES = "sqlite:///relative.db or sqlite:////absolute.db"

# By the scheme of its URLs.
KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "memory": Kind(
            IN_MEMORY,
            IN_MEMORY,
            "thinkonce.backing:in_memory",
            is_shared=False,
            place="memory only, and end with this process",
        ),
        "sqlite": Kind(_FILES, "sqlite:///.*[^/].*", "thinkonce.store_file:open_sqlite"),
    }
)
ACCEPTS = " or ".join(kind.accepts for kind in KINDS.values())


def kind_of(url: str, written: str = "store") -> Kind:
    """Raises ConfigError, naming `written`, for what is no URL of a store."""
    scheme, separator, _ = url.partition("://")
    if not separator:
        meant = f"{url}://" if url == "memory" else f"sqlite:///{url}"
        raise ConfigError(written, url, ACCEPTS + (f"; did you mean {meant}?" if url else ""))
    if scheme in LATER:
        raise ConfigError(written, url, f"{ACCEPTS}; Redis stores are not built yet")
    kind = KINDS.get(scheme)
    if kind is None or not re.fullmatch(kind.pattern, url, re.DOTALL):
        raise ConfigError(written, url, ACCEPTS)
    return kind
