"""Looking into a running gateway, and emptying it: everything under /cache.

Who may: whoever holds the token. Without one configured, callers on this machine only: a loopback
peer that asks for a loopback name (a web page elsewhere cannot, by DNS rebinding), with no sign of
a proxy in between and no foreign Origin, whose bodies are JSON (a form cannot be).
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from thinkonce.entry import Entry
from thinkonce.errors import ConfigError, CorruptEntry, RequestError, TierError
from thinkonce.gateway.http import Call, HttpError, read_body, send_whole
from thinkonce.gateway.marks import JSON_TYPE
from thinkonce.gateway.metrics import Metrics
from thinkonce.gateway.world import GatewayWorld
from thinkonce.insight.entries import content_of, row_of
from thinkonce.selector import (
    ALL_DIGITS,
    MOST_ALIKE,
    Selector,
    beginning_with,
    key_digits,
    only_one,
)
from thinkonce.shelf import Shelf
from thinkonce.tiers.tier import Key
from thinkonce.units import parse_bytes, parse_seconds

__all__ = ("Admin",)

log = logging.getLogger("thinkonce.audit")

BODY_LIMIT = 1024 * 1024
MOST_LISTED = 10_000
_FORWARDING = (b"forwarded", b"via", b"x-real-ip", b"cf-connecting-ip")  # and x-forwarded-*
_NOT_BUILT = ("preload", "export", "import", "explain")

Handler = Callable[[Call], Awaitable[None]]


class _Purge(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of POST purge. `older_than`: seconds, or a text such as 90s, 1h."""

    tags: list[str] = []
    namespace: str | None = None
    model: str | None = None
    key: str | None = None
    older_than: float | str | None = None
    expired: bool = False
    all: bool = False


class _Limits(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of POST limits: the bounds of the memory tier and of the store."""

    max_size: int | None = None
    max_bytes: int | str | None = None
    store_max_bytes: int | str | None = None


class Admin:
    """Belongs to one event loop; what a disk may delay runs in a thread.

    `store` is the URL shown for the shelf; `token` "": only callers on this machine.
    """

    def __init__(
        self, shelf: Shelf, store: str, token: str, world: GatewayWorld, metrics: Metrics
    ) -> None:
        self._shelf, self._store, self._token = shelf, store, token
        self._world, self._metrics = world, metrics
        self._clock = shelf.clock
        self._routes: dict[tuple[str, str], Handler] = {
            ("GET", "stats"): self._stats,
            ("GET", "entries"): self._entries,
            ("POST", "purge"): self._purge,
            ("POST", "limits"): self._limits,
        }

    async def __call__(self, call: Call) -> None:
        self._authorise(call)
        path = call.path.removeprefix("/cache").strip("/")
        route = self._routes.get((call.method, path))
        try:
            await self._answer(call, path, route)
        except TierError as error:
            raise _not_reached(call, error) from error

    async def _answer(self, call: Call, path: str, route: Handler | None) -> None:
        if route is not None:
            await route(call)
        elif path.startswith("entries/"):
            await self._entry(call, path.removeprefix("entries/"))
        elif path in _NOT_BUILT:
            raise HttpError(501, f"/cache/{path} is not built yet", code="not_implemented")
        else:
            known = ", ".join(sorted(f"{method} {name}" for method, name in self._routes))
            raise HttpError(404, f"there is no {call.method} {call.path}; there are {known}")

    # -- who may -------------------------------------------------------------------------

    def _authorise(self, call: Call) -> None:
        if self._token:
            given = call.head.get(b"x-thinkonce-admin-token", b"")
            if not hmac.compare_digest(given, self._token.encode()):
                raise HttpError(403, "x-thinkonce-admin-token: missing or wrong", code="forbidden")
        elif why := _why_not_local(call):
            raise HttpError(
                403,
                f"{why}; without [admin] token only callers on this machine may use /cache",
                code="forbidden",
            )
        kind = call.head.get(b"content-type", b"application/json").lower()
        if call.method == "POST" and b"json" not in kind:
            raise HttpError(415, "content-type: /cache accepts application/json", code="not_json")

    # -- looking -------------------------------------------------------------------------

    async def _stats(self, call: Call) -> None:
        # In a thread: counting the rows of a large store takes a disk's time.
        held = await asyncio.to_thread(self._shelf.stats)
        asked = {**self._metrics.summary(), "following": self._world.following}
        await self._send(call, {"store": self._store, **held, **asked})

    async def _entries(self, call: Call) -> None:
        query = parse_qs(call.query.decode("latin-1"))
        unknown = set(query) - {"limit", "after", "tag", "namespace", "model"}
        if unknown:
            raise RequestError(sorted(unknown)[0], query, "limit, after, tag, namespace or model")
        limit = _whole("limit", query.get("limit", ["100"])[0])
        selector = Selector(
            tags=tuple(query.get("tag", ())),
            namespace=query.get("namespace", [None])[0],
            model=query.get("model", [None])[0],
        )
        after = _hex("after", query["after"][0]) if "after" in query else b""
        found = await asyncio.to_thread(self._shelf.entries, selector, limit, after)
        now = self._clock.wall()
        rows = [row_of(entry, now) for entry in found]
        following = rows[-1].key if len(rows) == limit else None
        await self._send(call, {"entries": rows, "next": following})

    async def _entry(self, call: Call, rest: str) -> None:
        name, _, verb = rest.partition("/")
        if verb == "feedback":
            raise HttpError(501, "feedback is not built yet", code="not_implemented")
        if verb or call.method not in ("GET", "DELETE"):
            raise HttpError(404, f"there is no {call.method} {call.path}")
        if call.method == "DELETE":
            await self._remove(call, name)
            return
        entry = await self._found(name)
        told = msgspec.to_builtins(row_of(entry, self._clock.wall()))
        if parse_qs(call.query.decode("latin-1")).get("content") == ["true"]:
            told["content"] = _content(entry)
        await self._send(call, told)

    async def _found(self, name: str) -> Entry:
        digits = key_digits(name)
        alike = await asyncio.to_thread(self._shelf.entries, beginning_with(digits), MOST_ALIKE)
        try:
            found = only_one(alike, digits)
        except RequestError as error:
            raise HttpError(409, str(error), code="ambiguous") from error
        if found is None:
            raise HttpError(404, f"key: no entry begins with {digits}", code="not_found")
        return found

    async def _digest(self, name: str) -> bytes:
        digits = key_digits(name)
        if len(digits) == ALL_DIGITS:
            return bytes.fromhex(digits)
        return (await self._found(digits)).digest

    async def _remove(self, call: Call, name: str) -> None:
        digest = await self._digest(name)
        gone = int(await asyncio.to_thread(self._shelf.discard, Key(digest, digest)))
        if not gone:
            raise HttpError(404, f"key: there is no entry {digest.hex()}", code="not_found")
        self._audit(call, f"removed {digest.hex()}")
        await self._send(call, {"purged": gone})

    # -- changing ------------------------------------------------------------------------

    async def _purge(self, call: Call) -> None:
        wanted = _decoded(await read_body(call, BODY_LIMIT), _Purge)
        if wanted == _Purge():
            raise HttpError(
                400,
                "purge: nothing named; give tags, namespace, model, key, older_than, expired, "
                'or {"all": true}',
            )
        now = self._clock.wall()
        older = wanted.older_than
        selector = Selector(
            tags=tuple(wanted.tags),
            namespace=wanted.namespace,
            model=wanted.model,
            key=b"" if wanted.key is None else await self._digest(wanted.key),
            older_than=None if older is None else now - _seconds("older_than", older),
            expired_before=now if wanted.expired else None,
        )
        gone = await asyncio.to_thread(self._shelf.purge, selector)
        self._audit(call, f"purged {gone} entries: {_said(wanted)}")
        await self._send(call, {"purged": gone})

    async def _limits(self, call: Call) -> None:
        wanted = _decoded(await read_body(call, BODY_LIMIT), _Limits)
        try:
            self._shelf.resize(
                wanted.max_size,
                _bytes("max_bytes", wanted.max_bytes),
                _bytes("store_max_bytes", wanted.store_max_bytes),
            )
        except ConfigError as error:
            raise RequestError(error.setting, error.got, error.accepts) from error
        self._audit(call, f"limits set: {_said(wanted)}")
        await self._send(call, self._shelf.bounds())

    def _audit(self, call: Call, what: str) -> None:
        call.outcome = "admin"
        peer = (call.scope.get("client") or ("-",))[0]
        log.warning("admin %s from %s: %s", call.id.decode("latin-1"), peer, what)

    async def _send(self, call: Call, answer: Any) -> None:
        head = [JSON_TYPE, (b"x-request-id", call.id), (b"cache-control", b"no-store")]
        await send_whole(call, 200, head, msgspec.json.encode(answer))


def _not_reached(call: Call, error: TierError) -> HttpError:
    """The store's part failed; what memory held and was meant is gone all the same."""
    what = f"{error} ({error.__cause__ or error.doing})"
    if call.method != "GET":
        what += "; memory is purged, the store is not: try again once it can be written"
    wrong = HttpError(503, what, code="store_unavailable")
    wrong.headers = ((b"retry-after", b"10"),)
    return wrong


def _why_not_local(call: Call) -> str:
    """Why the caller does not count as one on this machine; "" if it does."""
    client = call.scope.get("client")
    if client is not None and not _is_loopback(client[0]):
        return f"the caller is {client[0]}"
    host = _hostname("//" + call.head.get(b"host", b"").decode("latin-1"))
    if not _is_loopback(host):
        return f"Host: {host!r:.80} is no loopback name"
    if any(name in _FORWARDING or name.startswith(b"x-forwarded-") for name in call.head):
        return "the request came through a proxy"
    origin = call.head.get(b"origin")
    if origin is not None and not _is_loopback(_hostname(origin.decode("latin-1"))):
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


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _decoded(raw: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(raw or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        fields = ", ".join(kind.__struct_fields__)
        raise HttpError(400, f"body: {error}; it accepts {fields}", param="body") from error


def _whole(name: str, text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_LISTED:
        raise RequestError(name, text, f"1 to {MOST_LISTED}")
    return int(text)


def _seconds(name: str, value: float | str) -> float:
    try:
        return parse_seconds(value, name)
    except ConfigError as error:
        raise RequestError(name, value, error.accepts) from error


def _bytes(name: str, value: int | str | None) -> int | None:
    return None if value is None else parse_bytes(value, name)


def _hex(name: str, text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise RequestError(name, text, "a key in hex") from None


def _content(entry: Entry) -> Any:
    try:
        return content_of(entry)
    except CorruptEntry as error:
        raise HttpError(
            422, f"content: cannot be shown here: {error}", code="unreadable"
        ) from error


def _said(wanted: msgspec.Struct) -> str:
    fields = msgspec.structs.asdict(wanted)
    return ", ".join(f"{name}={value!r}" for name, value in fields.items() if value) or "nothing"
