"""Who may use the admin paths: whoever holds the token; without one, callers on this machine only.

A loopback peer that asks for a loopback name (a web page elsewhere cannot, by DNS rebinding), with
no sign of a proxy in between and no Origin but the server's own, whose bodies are JSON: a page
cannot send it to another origin, be it another port of this machine, without asking first.
Both servers ask here, and both say of each change who made it.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Protocol
from urllib.parse import urlsplit

from thinkonce.web.exchange import Header, HttpError, Scope
from thinkonce.web.proxied import sign_of_proxy

__all__ = ("TOKEN", "Asking", "audited", "authorise", "check_kind", "is_loopback", "why_not_local")

_log = logging.getLogger("thinkonce.audit")

TOKEN = b"x-thinkonce-admin-token"

_NAMED_TWICE = (b"host", b"origin", b"sec-fetch-site", TOKEN)
# Types that no page sends elsewhere unasked (Fetch standard, 2.2.2): JSON, and lines of it.
_TYPES = (b"application/json", b"application/jsonl", b"application/x-ndjson")
_ALLOWED = b"access-control-allow-origin"
_PORTS = {"http": 80, "https": 443}
# A name or an address and a port (RFC 9110, 7.2): nobody's name, and no zone, in front or within.
_host = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?", re.IGNORECASE).fullmatch


class Asking(Protocol):
    """Of a request, what tells who asks. `head`: its headers, by their names in lower case.

    `cors`: what a browser is told of other sites' pages, in headers of the answer.
    """

    @property
    def scope(self) -> Scope: ...

    @property
    def path(self) -> str: ...

    @property
    def headers(self) -> Sequence[Header]: ...

    @property
    def head(self) -> Mapping[bytes, bytes]: ...

    @property
    def cors(self) -> Sequence[Header]: ...


def authorise(call: Asking, token: str) -> None:
    """`token` "": callers on this machine. Raises HttpError 403, 415 for a body that is no JSON."""
    if token:
        if not hmac.compare_digest(call.head.get(TOKEN, b""), token.encode()):
            raise _forbidden(f"{TOKEN.decode()}: missing or wrong")
    elif why := why_not_local(call):
        what = "/cache" if call.path.startswith("/cache") else call.path
        raise _forbidden(
            f"{why}; without [admin] token only callers on this machine may use {what}"
        )
    check_kind(call)


def check_kind(call: Asking) -> None:
    """Raises HttpError 415 for a body that a page could send unasked."""
    kind = call.head.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind not in _TYPES and _has_body(call):
        where = "/cache" if call.path.startswith("/cache") else call.path
        raise HttpError(415, f"content-type: {where} accepts application/json", code="not_json")


def audited(call: Asking, ident: bytes, what: str) -> None:
    """One line for each change: who, and what; never a token, a prompt or an answer."""
    peer = (call.scope.get("client") or ("-",))[0]
    _log.warning("admin %s from %s: %s", ident.decode("latin-1"), peer, what)


def _has_body(call: Asking) -> bool:
    """RFC 9112, 6.3."""
    return b"transfer-encoding" in call.head or call.head.get(b"content-length", b"0") != b"0"


def _forbidden(why: str) -> HttpError:
    return HttpError(403, why, code="forbidden")


def why_not_local(call: Asking) -> str:
    """Why the caller does not count as one on this machine; "" if it does."""
    client = call.scope.get("client")
    if client is not None and not is_loopback(client[0]):
        return f"the caller is {client[0]}"
    names = [name for name, _ in call.headers]
    if twice := next((name for name in _NAMED_TWICE if names.count(name) > 1), None):
        return f"{twice.decode()}: it was sent twice"
    host = call.head.get(b"host", b"").decode("latin-1")
    parsed = _host(host)
    if parsed is None or not is_loopback(parsed[1]):
        return f"Host: {host!r:.80} is no loopback name"
    version = call.scope["http_version"]
    return sign_of_proxy(call.headers, names, version) or _why_foreign(call, host)


def _why_foreign(call: Asking, host: str) -> str:
    """Whether a page asks that is not the server's own; `host` is this machine."""
    origin = call.head.get(b"origin", b"").decode("latin-1")
    is_let_in = _is_let_in(call, origin)
    if b"origin" in call.head and not is_let_in:
        own = f"{call.scope['scheme']}://{host}"
        asking = _place_of(origin)
        if asking is None or asking != _place_of(own):
            return f"Origin: {origin!r:.80} is another site than {own}"
    site = call.head.get(b"sec-fetch-site", b"none")
    if site not in (b"same-origin", b"none") and not (is_let_in and site == b"same-site"):
        return "the request comes from a page of another site"
    return ""


def _is_let_in(call: Asking, origin: str) -> bool:
    """Whether `[gateway] cors_origins` names this page of this machine; never for /cache."""
    place = _place_of(origin) if any(name == _ALLOWED for name, _ in call.cors) else None
    return place is not None and is_loopback(place[1])


def _place_of(origin: str) -> tuple[str, str, int] | None:
    """Scheme, name and port (RFC 6454, 4); None for what is no origin of the web."""
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return None
    parsed = _host(parts.netloc)
    if parsed is None or parts.scheme not in _PORTS or parts.path or parts.query or parts.fragment:
        return None
    return parts.scheme, parsed[1].lower(), port or _PORTS[parts.scheme]


def is_loopback(host: str) -> bool:
    """Whether `host`, a name or an address, is this machine and reached from nowhere else."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
