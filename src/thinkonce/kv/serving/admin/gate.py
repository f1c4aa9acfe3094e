"""Who may use the routes that change what is kept, or tell of it, and what they are sent.

The gateway, with its secret; besides it whoever may use the gateway's own admin paths: see
`web/access.py`.
"""

from __future__ import annotations

import hmac

import msgspec

from thinkonce.errors import RequestError
from thinkonce.kv.prefix.purges import PurgeRule
from thinkonce.kv.serving.http import Incoming
from thinkonce.kv.serving.requests.wrong import decoded
from thinkonce.request.headers import ENGINE_HEADERS
from thinkonce.web.access import authorise, check_kind

__all__ = ("Gate", "PurgeAsk", "read_purge")


class PurgeAsk(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /kv/purge`. Every field given must hold; of `tags` one suffices."""

    tags: tuple[str, ...] = ()
    document: str | None = None
    namespace: str | None = None
    tenant: str | None = None
    model: str | None = None
    all: bool = False

    @property
    def rule(self) -> PurgeRule:
        tenant, namespace = self.tenant, self.namespace
        rule = PurgeRule(tenant=tenant, namespace=namespace, tags=self.tags)
        return msgspec.structs.replace(rule, document=self.document)


class Gate:
    """`secret`: the gateway's; `token`: [admin] token, which may change. Either may be empty."""

    def __init__(self, secret: bytes, token: str) -> None:
        self._secret, self.token = secret, token

    def let_in(self, request: Incoming) -> None:
        """Raises HttpError 403 for anybody else, 415 for a body that a page could send unasked."""
        given = request.head.get(ENGINE_HEADERS[0], b"")
        if self._secret and hmac.compare_digest(given, self._secret):
            check_kind(request)
        else:
            authorise(request, self.token)


def read_purge(body: bytes) -> PurgeAsk:
    """Raises RequestError for what names nothing or an unknown field: nothing is purged then."""
    ask = decoded(body or b"{}", PurgeAsk)
    if ask == PurgeAsk():
        names = ", ".join(PurgeAsk.__struct_fields__)
        raise RequestError("body", "nothing named", f'{names}; {{"all": true}} purges everything')
    if ask.all and ask != PurgeAsk(all=True):
        raise RequestError("all", True, "nothing beside it")
    return ask
