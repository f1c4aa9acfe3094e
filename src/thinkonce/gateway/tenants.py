"""Whose answers are whose: a credential becomes a tenant, and is then forgotten.

Two credentials never share an entry unless the configuration puts them into one group.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence

from thinkonce.errors import RequestError
from thinkonce.request.key import ANONYMOUS, Keyer

__all__ = ("Tenants",)

Credential = tuple[tuple[bytes, bytes], ...]

_is_tenant = re.compile(f"[0-9a-f]{{32}}|{ANONYMOUS}").fullmatch
_SECRETS = (b"authorization", b"x-api-key", b"api-key")


class Tenants:
    """`groups`: name -> SHA-256 in hex of each member's credential."""

    def __init__(self, keyer: Keyer, groups: Mapping[str, Sequence[str]]) -> None:
        self._tenant = keyer.tenant
        self._group_of = {digest: name for name, digests in groups.items() for digest in digests}

    def of(self, credential: Credential) -> str:
        """The tenant of a request's credential headers; "anonymous" without any."""
        if self._group_of:
            for name, value in credential:
                group = self._group_of.get(_sha256(value)) if name in _SECRETS else None
                if group is not None:
                    return self._tenant(((b"group", group.encode()),))
        return self._tenant(credential)

    def checked(self, tenant: str) -> str:
        """`tenant` itself. Raises RequestError for what no tenant is called."""
        if not _is_tenant(tenant):
            raise RequestError("tenant", tenant, f"32 hex digits, or {ANONYMOUS}")
        return tenant

    def of_group(self, name: str) -> str:
        """Raises RequestError for a group that the configuration does not have."""
        known = sorted(set(self._group_of.values()))
        if name not in known:
            accepts = f"one of [groups]: {', '.join(known)}" if known else "a name of [groups]"
            raise RequestError("group", name, accepts)
        return self._tenant(((b"group", name.encode()),))


def _sha256(value: bytes) -> str:
    """Of the credential alone, as `printf %s "$KEY" | sha256sum` gives it."""
    scheme, _, rest = value.partition(b" ")
    secret = rest.strip() if scheme.lower() == b"bearer" else value
    return hashlib.sha256(secret).hexdigest()
