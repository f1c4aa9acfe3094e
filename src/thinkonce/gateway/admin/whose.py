"""Whose entries an administrator means: a tenant, a group, or a client by its credential."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from thinkonce.engine.http import Call, HttpError
from thinkonce.errors import RequestError
from thinkonce.gateway.admin.desk import Desk
from thinkonce.protocols.registry import facts_of
from thinkonce.request.headers import CLIENT_HEADERS, Taken, take_headers
from thinkonce.selector import Selector
from thinkonce.shelf import Shelf
from thinkonce.upstream.failure import Header

__all__ = ("Whose", "only_tenant", "whose")

TENANT, GROUP = b"x-thinkonce-tenant", b"x-thinkonce-group"
AUTHORIZATION, API_KEY = CLIENT_HEADERS
API_KEY_HEADER = b"x-api-key"
OF_OPENAI = (b"openai-organization", b"openai-project")
CHOICES = "x-thinkonce-tenant, x-thinkonce-group or x-thinkonce-client-authorization"
PAGE, MOST_LOOKED_AT = 200, 10_000


class Whose:
    """`tenant` "": that of the credential, which also goes to upstreams that take the client's."""

    def __init__(
        self,
        tenant: str,
        authorization: bytes = b"",
        api_key: bytes = b"",
        more: Sequence[Header] = (),
    ) -> None:
        self.tenant, self._authorization, self._api_key = tenant, authorization, api_key
        self._more = more  # organisation and project, which tell clients of one key apart

    def credential(self, endpoint: str) -> list[Header]:
        """As an upstream of this endpoint wants it; whose it is does not depend on the header."""
        own_header = facts_of(endpoint).key_header == API_KEY_HEADER
        if self._api_key and (own_header or not self._authorization):
            return [(API_KEY_HEADER, self._api_key), *self._more]
        own = [(b"authorization", self._authorization)] if self._authorization else []
        return [*own, *self._more]

    def of(self, desk: Desk, endpoint: str) -> str:
        """The tenant whose entry a request to `endpoint` makes."""
        sent: Taken = take_headers(self.credential(endpoint))
        return self.tenant or desk.tenants.of(sent.credential)


async def whose(desk: Desk, call: Call) -> Whose:
    """Raises HttpError 400 where nobody is named and there is not exactly one tenant."""
    given = named(desk, call)
    if given is not None:
        return given
    tenant = await asyncio.to_thread(only_tenant, desk.shelf)
    if tenant is None:
        raise HttpError(
            400, f"whose entries: name one of {CHOICES}", code="tenant_needed", param="tenant"
        )
    return Whose(tenant)


def named(desk: Desk, call: Call) -> Whose | None:
    """Whom the headers name; None where they name nobody."""
    authorization, api_key = call.head.get(AUTHORIZATION, b""), call.head.get(API_KEY, b"")
    more = [pair for pair in call.headers if pair[0] in OF_OPENAI]
    tenant, group = call.head.get(TENANT), call.head.get(GROUP)
    if tenant is not None:
        desk.tenants.checked(tenant.decode("latin-1"))
    if group is not None:
        if tenant is not None:
            raise RequestError(
                GROUP.decode(), group.decode("latin-1"), "a group or a tenant, not both"
            )
        tenant = desk.tenants.of_group(group.decode("latin-1")).encode()
    if tenant is None and not authorization and not api_key:
        return None
    return Whose((tenant or b"").decode(), authorization, api_key, more)


def only_tenant(shelf: Shelf) -> str | None:
    """The one tenant that all entries belong to; None if there are none, or several, or so many
    entries that looking at all would take long. Values of functions have no tenant."""
    tenants: set[str] = set()
    after, seen = b"", 0
    while seen < MOST_LOOKED_AT:
        page = shelf.entries(Selector(), PAGE, after)
        tenants.update(entry.meta.tenant for entry in page if entry.meta.tenant)
        if len(page) < PAGE or len(tenants) > 1:
            return tenants.pop() if len(tenants) == 1 else None
        seen, after = seen + len(page), page[-1].digest
    return None
