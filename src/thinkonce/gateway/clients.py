"""Who may use the gateway, once it knows its clients: by their keys, of which it holds digests.

    request ──► whose key is it? ──► nobody's: 401
                     │
                     ▼
             place among its requests under way ──► none free: 429
                     │
                     ▼
                allowance ──► used up: 429
                     │
                     ▼
                model (when the body is read) ──► not this client's: 403

A gateway that knows no clients serves everybody. With a key of its own it then serves only callers
on this machine, and does not start on an address that others can reach.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from thinkonce.clock import Clock
from thinkonce.engine.http import Call, HttpError
from thinkonce.engine.tenants import Tenants
from thinkonce.errors import MISSING, ConfigError
from thinkonce.gateway.team import Limiters
from thinkonce.request.headers import SECRETS, digest_of
from thinkonce.settings import Client, Settings
from thinkonce.upstream.failure import Header
from thinkonce.upstream.room import CLIENTS
from thinkonce.web.access import is_loopback, why_not_local
from thinkonce.web.hosts import foreign_host
from thinkonce.web.refusals import beyond_limit, model_not_allowed, unknown_key

__all__ = ("Clients", "KnownClient", "check_guarded")


MAX_SECRETS = len(SECRETS)  # a credential in each header that may have one

# A server in Go knows a member of a body by its name in any case
# (https://pkg.go.dev/encoding/json#Unmarshal), and routers read two more
# (https://openrouter.ai/docs/features/model-routing).
_CHOOSING = ("model", "models", "route")


class KnownClient:
    """One of `[clients]`. Belongs to one event loop."""

    __slots__ = ("allowance", "is_gone", "name", "quota", "room", "row", "tenant")

    def __init__(
        self,
        name: str,
        row: Client,
        tenant: str,
        clock: Clock,
        measure: Callable[[str], int],
        limiters: Limiters,
    ) -> None:
        self.name, self.row, self.tenant = name, row, tenant
        self.is_gone = False
        limit, most, at_once = row.rate_limit, row.max_bytes, row.max_concurrent
        own = f"{name} {row.key_sha256}"
        alike = f"{own} {limit}"  # whoever is declared otherwise begins anew
        self.allowance = None if limit is None else limiters.allowance(alike, limit, clock)
        used = partial(measure, tenant)
        self.quota = None if most is None else limiters.quota(tenant, most, used, clock)
        self.room = None if at_once is None else limiters.room(CLIENTS, own, at_once)

    def __repr__(self) -> str:
        return f"KnownClient({self.name!r})"

    def may_ask(self) -> bool:
        """Whether `Clients.admit` would let a request in now; nothing is taken."""
        allowance, room = self.allowance, self.room
        return (allowance is None or allowance.has_one()) and (room is None or room.has_one())

    def take_over(self, former: KnownClient) -> None:
        """From now on it stands in for `former`, whose requests under way count on."""
        if self.room is not None and former.room is not None:
            former.room.most = self.room.most
            self.room = former.room

    @property
    def is_limited(self) -> bool:
        """Whether it may use some models only."""
        return bool(self.row.models)

    @property
    def is_strict(self) -> bool:
        """Whether it is served by strict mode."""
        return self.row.strict

    def allows(self, model: object) -> bool:
        patterns = self.row.models
        return not patterns or (
            isinstance(model, str) and any(fnmatchcase(model, pattern) for pattern in patterns)
        )

    def check_model(self, model: str) -> None:
        """Raises HttpError 403 for a model that is not this client's."""
        if not self.allows(model):
            raise model_not_allowed("model", f"{model!r:.80} is not allowed", self.row.models)

    def check_body(self, body: Mapping[str, Any]) -> None:
        """Raises HttpError 403 for a member by which a server could choose another model."""
        if not self.is_limited:
            return
        others = body.get("models")
        routed = isinstance(others, list) and bool(others) and all(map(self.allows, others))
        for name in body:
            if name == "model" or name.casefold() not in _CHOOSING:
                continue
            if not (routed and name in ("models", "route")):
                raise model_not_allowed(name, "could choose another model", self.row.models)


class Clients:
    """All known clients. `own_key`: some upstream is used with a key of the gateway's.

    `measure` gives the bytes that a tenant's answers take. `hosts`: the names of a gateway that
    listens on loopback, besides its usual ones; None: it is for others to reach, by any name.
    Belongs to one event loop.
    """

    def __init__(
        self,
        rows: Mapping[str, Client],
        tenants: Tenants,
        clock: Clock,
        measure: Callable[[str], int],
        limiters: Limiters,
        *,
        own_key: bool = False,
        hosts: Sequence[str] | None = None,
    ) -> None:
        self._known = {  # by the digest of its key
            row.key_sha256: KnownClient(
                name, row, tenants.of_digest(row.key_sha256), clock, measure, limiters
            )
            for name, row in rows.items()
        }
        self.only_known = bool(rows)
        self.only_local = own_key and not rows
        self._hosts = None if rows else hosts

    def __len__(self) -> int:
        return len(self._known)

    def keeping(self, former: Clients) -> Clients:
        """These clients; one as it was goes on with what it has left of its allowance."""
        for digest, client in self._known.items():
            old = former._known.get(digest)
            is_same = old is not None and old.name == client.name and old.tenant == client.tenant
            if old is not None and is_same and old.row == client.row:
                self._known[digest] = old
        return self

    def followed_by(self, clients: Clients) -> None:
        """`clients` are known from now on: who is not among them is gone."""
        for digest, client in self._known.items():
            heir = clients._known.get(digest)
            client.is_gone = heir is None
            if heir is not None and heir.name == client.name:
                heir.take_over(client)

    def find(self, headers: Iterable[Header]) -> KnownClient | None:
        """The client whose key is among `headers`; None where there are too many to be keys.

        What the time tells of a digest is of no use: nobody can make a key for a digest.
        """
        if not self._known:
            return None
        secrets = [value for name, value in headers if name in SECRETS]
        if len(secrets) > MAX_SECRETS:
            return None
        found = (self._known.get(digest_of(value)) for value in secrets)
        return next((client for client in found if client is not None), None)

    def why_foreign(self, headers: Iterable[Header]) -> str:
        """Why these headers may be a page's of another site; "" where they are not."""
        if self._hosts is None or not (host := foreign_host(headers, SECRETS, self._hosts)):
            return ""
        return (
            f"Host: {host!r:.80} is no name of this gateway, which serves this machine without "
            "keys; ask for localhost, send a key, or name it in [gateway] hosts"
        )

    def admit(self, call: Call) -> None:
        """Let a request in and note whose it is. Raises HttpError 401, 403, 429.

        A place that it takes is noted in `call.room`, also where it is refused then.
        """
        if self.only_local and (why := why_not_local(call)):
            raise HttpError(
                403,
                f"{why}; a gateway with a key of its own and without [clients] serves only "
                "callers on its machine",
                code="forbidden",
            )
        if not self.only_known:
            if why := self.why_foreign(call.headers):
                raise HttpError(403, why, code="forbidden")
            return
        client = self.find(call.headers)
        if client is None:
            raise _unknown(sum(name in SECRETS for name, _ in call.headers))
        call.client = client
        if client.room is not None:
            if not client.room.take():
                may = f"have {client.room.most:g} requests under way at a time"
                raise beyond_limit("max_concurrent", may, "concurrency_limit_exceeded")
            call.room = client.room
        if client.allowance is not None and not client.allowance.take():
            seconds = client.allowance.seconds_to_one()
            may = f"make {client.allowance.per_minute} requests a minute"
            raise beyond_limit("rate_limit", may, "rate_limit_exceeded", seconds)


def check_guarded(settings: Settings) -> None:
    """Raises ConfigError where strangers could use a key of the gateway's."""
    paid = [name for name, row in settings.upstreams.items() if row.api_key_env]
    host = settings.gateway.host
    if paid and not settings.clients and not is_loopback(host):
        raise ConfigError(
            "[clients]",
            MISSING,
            f"`thinkonce keys add NAME` for each client, or [gateway] host = 127.0.0.1: at {host} "
            f"anybody could use the key of [upstreams.{paid[0]}]",
        )


def _unknown(secrets: int) -> HttpError:
    if secrets > MAX_SECRETS:
        said = f"the request has {secrets} credentials; it may have {MAX_SECRETS}, one in a header"
        return HttpError(400, said, code="too_many_credentials")
    return unknown_key("gateway")
