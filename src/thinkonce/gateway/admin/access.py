"""Who may use /cache: whoever holds the token; without one, callers on this machine only.

A loopback peer that asks for a loopback name (a web page elsewhere cannot, by DNS rebinding), with
no sign of a proxy in between and no foreign Origin, whose bodies are JSON (a form cannot be).
"""

from __future__ import annotations

import hmac
import ipaddress
from urllib.parse import urlsplit

from thinkonce.engine.http import Call, HttpError

__all__ = ("authorise", "is_loopback", "why_not_local")

_FORWARDING = (b"forwarded", b"via", b"x-real-ip", b"cf-connecting-ip")  # and x-forwarded-*
_NAMED_TWICE = (b"host", b"origin", b"x-thinkonce-admin-token")


def authorise(call: Call, token: str) -> None:
    """`token` "": callers on this machine. Raises HttpError 403, 415 for a POST that is no JSON."""
    if token:
        given = call.head.get(b"x-thinkonce-admin-token", b"")
        if not hmac.compare_digest(given, token.encode()):
            raise _forbidden("x-thinkonce-admin-token: missing or wrong")
    elif why := why_not_local(call):
        what = "/cache" if call.path.startswith("/cache") else call.path
        raise _forbidden(
            f"{why}; without [admin] token only callers on this machine may use {what}"
        )
    kind = call.head.get(b"content-type", b"application/json").lower()
    if call.method == "POST" and b"json" not in kind:
        raise HttpError(415, "content-type: /cache accepts application/json", code="not_json")


def _forbidden(why: str) -> HttpError:
    return HttpError(403, why, code="forbidden")


def why_not_local(call: Call) -> str:
    """Why the caller does not count as one on this machine; "" if it does."""
    client = call.scope.get("client")
    if client is not None and not is_loopback(client[0]):
        return f"the caller is {client[0]}"
    names = [name for name, _ in call.headers]
    if twice := next((name for name in _NAMED_TWICE if names.count(name) > 1), None):
        return f"{twice.decode()}: it was sent twice"
    host = _hostname("//" + call.head.get(b"host", b"").decode("latin-1"))
    if not is_loopback(host):
        return f"Host: {host!r:.80} is no loopback name"
    if any(name in _FORWARDING or name.startswith(b"x-forwarded-") for name in names):
        return "the request came through a proxy"
    origin = call.head.get(b"origin")
    if origin is not None and not is_loopback(_hostname(origin.decode("latin-1"))):
        return f"Origin: {origin.decode('latin-1')!r:.80} is another site"
    if call.head.get(b"sec-fetch-site") == b"cross-site":
        return "the request comes from a page of another site"
    return ""


def _hostname(url: str) -> str:
    """The empty text where it names no host."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Whether `host`, a name or an address, is this machine and reached from nowhere else."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
