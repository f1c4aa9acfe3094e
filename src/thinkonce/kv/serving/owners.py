"""Whose a request to the model server is: attention state is shared within one owner only.

from the gateway    the tenant it names, with the secret it started this server with
from a client       a keyed hash of its credential headers; of a known one, of its key or group
behind a gateway    whatever comes without a tenant is nobody's, and shares with nobody
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b

from thinkonce.errors import RequestError
from thinkonce.kv.prefix.owner import Owner
from thinkonce.kv.serving.clients import Clients
from thinkonce.kv.serving.http import Incoming, header
from thinkonce.request.headers import CLIENT_HEADERS, ENGINE_HEADERS, SECRETS, is_credential, key_in
from thinkonce.settings import Client
from thinkonce.web.exchange import Header, HttpError, Scope
from thinkonce.web.hosts import foreign_host

__all__ = ("Owners",)


class Owners:
    """`secret` is the one a gateway started this server with; empty: no gateway did.

    Clients' credentials are hashed with `key`, of 32 bytes, and then forgotten; empty: with one
    of this process. `is_local`: the server is this machine's, by its usual names; a page of
    another site comes by its own. `clients`: who may ask besides the gateway; none: everybody.
    """

    def __init__(
        self,
        secret: str = "",
        key: bytes = b"",
        *,
        is_local: bool = False,
        clients: Clients | None = None,
    ) -> None:
        self.secret, self._is_local = secret.encode(), is_local
        self._key = key or secrets.token_bytes(32)
        self._clients = clients or Clients()

    def adopt(self, clients: Mapping[str, Client]) -> None:
        """These are known from now on. On the event loop of requests."""
        self._clients.adopt(clients)

    @contextmanager
    def request(self, scope: Scope, model: str) -> Iterator[Owner]:
        """Whose it is, around one request and its answer. Raises HttpError 401 and 403 for who
        may not ask, 403 for what a client may not, and 429 beyond its limits.
        """
        if not self._clients or self._is_gateway(scope):
            yield self._of(scope)
            return
        client = self._clients.of(scope["headers"])
        with client.request(model):
            yield self._shared(client.shares_as)

    def check_known(self, scope: Scope) -> None:
        """Raises HttpError 401 for who is not known, where somebody is."""
        if self._clients and not self._is_gateway(scope):
            self._clients.of(scope["headers"])

    def _is_gateway(self, scope: Scope) -> bool:
        """Raises HttpError 403 for a tenant, or a secret, that is not the gateway's to name."""
        given, tenant = (header(scope, name) for name in ENGINE_HEADERS)
        is_gateway = bool(self.secret) and hmac.compare_digest(given or b"", self.secret)
        if (given or tenant) and not is_gateway:
            names = " and ".join(name.decode() for name in ENGINE_HEADERS)
            raise HttpError(403, f"{names} are for the gateway that started this server")
        return is_gateway

    def _of(self, scope: Scope) -> Owner:
        """Raises HttpError 403 for a page of another site."""
        tenant = header(scope, ENGINE_HEADERS[1])
        if self._is_gateway(scope) and tenant:
            return Owner(f"gateway {tenant.decode('latin-1')}")
        if self.secret:
            return Owner(f"nobody {secrets.token_hex(16)}")
        if self._is_local and (host := foreign_host(scope["headers"], SECRETS, ())):
            raise HttpError(
                403,
                f"Host: {host!r:.80} is no name of this server, which serves this machine without "
                "keys; ask for localhost, or send a key",
                code="forbidden",
            )
        return Owner(f"client {self._hashed(scope)}")

    def named(self, request: Incoming) -> Owner:
        """Whom somebody who may use /kv means: a client by its key, or a gateway's tenant.

        Raises RequestError for one that could never ask here, HttpError 400 where nobody is
        named who could.
        """
        tenant = request.head.get(ENGINE_HEADERS[1])
        if tenant is not None and not self.secret:
            accepts = "nothing: no gateway asks this server; name a client by its credential"
            raise RequestError(ENGINE_HEADERS[1].decode(), tenant.decode("latin-1"), accepts)
        if tenant:
            return Owner(f"gateway {tenant.decode('latin-1')}")
        if self.secret and not self._clients:
            message = "a gateway asks this server: name the tenant in x-thinkonce-tenant"
            raise HttpError(400, message, code="tenant_needed", param="tenant")
        if self._clients:
            return self._shared(self._clients.of(_credential(request)).shares_as)
        return Owner(f"client {self._hash_of(_credential(request))}")

    def shows_texts(self, request: Incoming) -> bool:
        """Whether whoever asks has the client's credential, or is its gateway. An administrator
        who only names a tenant is told what happened to its prompts and none of their text.
        """
        given, tenant = (request.head.get(name, b"") for name in ENGINE_HEADERS)
        return not tenant or hmac.compare_digest(given, self.secret)

    def _shared(self, name: bytes) -> Owner:
        # Keyed, as others are: names on disk tell nobody whose key made them.
        return Owner(f"client {blake2b(name, key=self._key, digest_size=32).hexdigest()}")

    def _hashed(self, scope: Scope) -> str:
        return self._hash_of(scope["headers"])

    def _hash_of(self, headers: Iterable[Header]) -> str:
        hashed = blake2b(key=self._key, digest_size=32)
        shown = {_shown(*pair) for pair in headers if is_credential(pair[0])}
        for name, value in sorted(shown):
            hashed.update(b"%d %b %d %b" % (len(name), name, len(value), value))
        return hashed.hexdigest()


def _shown(name: bytes, value: bytes) -> Header:
    key = key_in(name, value)
    return (name, value) if key is None else (b"key", key)


def _credential(request: Incoming) -> list[Header]:
    """What an administrator named in the headers for it; else the caller's own."""
    authorization, api_key = (request.head.get(name) for name in CLIENT_HEADERS)
    if authorization is None and api_key is None:
        return request.headers
    more = [pair for pair in request.headers if pair[0] not in SECRETS]
    named = ((b"authorization", authorization), (b"x-api-key", api_key))
    return more + [(name, value) for name, value in named if value is not None]
