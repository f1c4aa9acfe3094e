"""Whose answers are whose: a credential becomes a tenant, and is then forgotten.

Two credentials never share an entry unless the configuration puts them into one group.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from thinkonce.request.key import Keyer

__all__ = ("Tenants",)

Credential = tuple[tuple[bytes, bytes], ...]

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


def _sha256(value: bytes) -> str:
    """Of the credential alone, as `printf %s "$KEY" | sha256sum` gives it."""
    scheme, _, rest = value.partition(b" ")
    secret = rest.strip() if scheme.lower() == b"bearer" else value
    return hashlib.sha256(secret).hexdigest()
