"""Who may use the routes that change what is kept, and what they are sent.

The gateway, with its secret; and callers on this machine, where nobody else asks in their name: a
loopback peer that names a loopback host, no proxy's header, no page of the web, a body of JSON.
"""

from __future__ import annotations

import hmac
import ipaddress

import msgspec

from thinkonce.errors import RequestError
from thinkonce.kv.prefix.purges import PurgeRule
from thinkonce.kv.serving.http import header
from thinkonce.request.headers import ENGINE_HEADERS
from thinkonce.web.exchange import HttpError, Scope

__all__ = ("PurgeAsk", "authorise", "read_purge")

_PROXIED = ("forwarded", "proxy", "via", "realip", "real-ip", "client-ip", "cdn", "cf-")
_PAGES = (b"origin", b"sec-fetch-site")
_FIELDS = "tags, namespace, tenant, model, all"


class PurgeAsk(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /kv/purge`. Every field given must hold; of `tags` one suffices."""

    tags: tuple[str, ...] = ()
    namespace: str | None = None
    tenant: str | None = None
    model: str | None = None
    all: bool = False

    @property
    def rule(self) -> PurgeRule:
        return PurgeRule(tenant=self.tenant, namespace=self.namespace, tags=self.tags)


def authorise(scope: Scope, secret: bytes) -> None:
    """Raises HttpError 403 for anybody else, 415 for a body that a page could send unasked."""
    given = header(scope, ENGINE_HEADERS[0])
    is_gateway = bool(secret) and hmac.compare_digest(given or b"", secret)
    if not is_gateway and (why := _why_not_local(scope)):
        message = f"{why}; only callers on this machine, and the gateway, may use {scope['path']}"
        raise HttpError(403, message, code="forbidden")
    kind = (header(scope, b"content-type") or b"").partition(b";")[0].strip().lower()
    if kind != b"application/json":
        raise HttpError(415, "content-type: this path accepts application/json", code="not_json")


def read_purge(body: bytes) -> PurgeAsk:
    """Raises RequestError for what names nothing or an unknown field: nothing is purged then."""
    try:
        ask = msgspec.json.decode(body or b"{}", type=PurgeAsk)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
        raise RequestError("body", str(wrong), f"JSON with {_FIELDS}") from wrong
    if ask == PurgeAsk():
        raise RequestError("body", "nothing named", f'{_FIELDS}; {{"all": true}} purges everything')
    if ask.all and ask != PurgeAsk(all=True):
        raise RequestError("all", True, "nothing beside it")
    return ask


def _why_not_local(scope: Scope) -> str:
    """Why the caller does not count as one on this machine; "" if it does."""
    client = scope.get("client")
    if client is not None and not _is_loopback(client[0]):
        return f"the caller is {client[0]}"
    names = [name.decode("latin-1") for name, _ in scope["headers"]]
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    host = hosts[0].decode("latin-1") if len(hosts) == 1 else ""
    if not _is_loopback(_without_port(host)):
        return f"Host: {host!r:.80} is no loopback name"
    if signs := [name for name in names if any(word in name for word in _PROXIED)]:
        return f"the request came through a proxy (it has {signs[0]!r:.80})"
    if any(header(scope, name) is not None for name in _PAGES):
        return "the request comes from a web page"
    return ""


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() and not host.endswith("]") else host


def _is_loopback(name: str) -> bool:
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False
