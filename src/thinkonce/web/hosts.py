"""By which names a server that everybody on this machine may use lets itself be addressed.

A page on the web can give its own name the address 127.0.0.1 once it is loaded (DNS rebinding);
for a browser it then talks to its own site, so neither Origin nor CORS says anything. What it
cannot change is the Host it sends: its own name. A credential shows somebody who knows the server,
and leads to that one's own answers, so a request that carries one is not looked at here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable
from urllib.parse import urlsplit

__all__ = ("OWN_NAMES", "foreign_host")

OWN_NAMES = ("localhost", "host.docker.internal", "host.containers.internal")
"""Nobody on the web can have one of these. The latter two are this machine, as containers on it
see it."""


def foreign_host(
    headers: Iterable[tuple[bytes, bytes]], credentials: Collection[bytes], names: Collection[str]
) -> str:
    """The Host of a request that a page of another site may have made; "" where none did.

    `credentials`: headers of which one that is not empty is enough. `names`: further ones that
    are this server's. Addresses are nobody's name. Without Host (HTTP/1.0) no browser asks.
    """
    asked = ""
    for name, value in headers:
        if name in credentials and value.strip():
            return ""
        if name == b"host":
            asked = value.decode("latin-1")
    return "" if not asked or _is_own(_name_of(asked), names) else asked


def _name_of(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_own(name: str, names: Collection[str]) -> bool:
    if name in OWN_NAMES or name.endswith(".localhost") or name in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
