"""Whose a request to the model server is: attention state is shared within one owner only.

from the gateway    the tenant it names, with the secret it started this server with
from a client       a keyed hash of its credential headers
behind a gateway    whatever comes without a tenant is nobody's, and shares with nobody
"""

from __future__ import annotations

import hmac
import secrets
from hashlib import blake2b

from thinkonce.kv.prefix.owner import Owner
from thinkonce.kv.serving.http import header
from thinkonce.request.headers import ENGINE_HEADERS, is_credential
from thinkonce.web.exchange import HttpError, Scope

__all__ = ("Owners",)


class Owners:
    """`secret` is the one a gateway started this server with; empty: no gateway did.

    Clients' credentials are hashed with `key`, of 32 bytes, and then forgotten; empty: with one
    of this process.
    """

    def __init__(self, secret: str = "", key: bytes = b"") -> None:
        self.secret = secret.encode()
        self._key = key or secrets.token_bytes(32)

    def of(self, scope: Scope) -> Owner:
        """Raises HttpError 403 for a tenant, or a secret, that is not the gateway's to name."""
        given, tenant = (header(scope, name) for name in ENGINE_HEADERS)
        is_gateway = bool(self.secret) and hmac.compare_digest(given or b"", self.secret)
        if (given or tenant) and not is_gateway:
            names = " and ".join(name.decode() for name in ENGINE_HEADERS)
            raise HttpError(403, f"{names} are for the gateway that started this server")
        if is_gateway and tenant:
            return Owner(f"gateway {tenant.decode('latin-1')}")
        if self.secret:
            return Owner(f"nobody {secrets.token_hex(16)}")
        return Owner(f"client {self._hashed(scope)}")

    def _hashed(self, scope: Scope) -> str:
        hashed = blake2b(key=self._key, digest_size=32)
        for name, value in sorted(pair for pair in scope["headers"] if is_credential(pair[0])):
            hashed.update(b"%d %b %d %b" % (len(name), name, len(value), value))
        return hashed.hexdigest()
