"""Whose answers are whose: a credential becomes a tenant, and is then forgotten.

Two credentials never share an entry unless the configuration puts them into one group.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import msgspec

from thinkonce.errors import RequestError
from thinkonce.request.headers import SECRETS, Taken, digest_of
from thinkonce.request.key import ANONYMOUS, Keyer
from thinkonce.settings import Client

__all__ = ("Tenants",)

Credential = tuple[tuple[bytes, bytes], ...]

_is_tenant = re.compile(f"[0-9a-f]{{32}}|{ANONYMOUS}").fullmatch


class Tenants:
    """`groups`: name -> SHA-256 in hex of each member's credential.

    Known clients are told by their key alone: whichever header it comes in, and whatever
    organisation is named beside it.
    """

    def __init__(
        self,
        keyer: Keyer,
        groups: Mapping[str, Sequence[str]],
        clients: Mapping[str, Client] = MappingProxyType({}),
    ) -> None:
        self._tenant = keyer.tenant
        self._clients = {row.key_sha256 for row in clients.values()}
        self._rows = clients
        self._group_of = {digest: name for name, digests in groups.items() for digest in digests}
        self._group_of |= {row.key_sha256: row.group for row in clients.values() if row.group}
        self._name_of = {row.key_sha256: name for name, row in clients.items()}

    def of(self, credential: Credential) -> str:
        """The tenant of a request's credential headers; "anonymous" without any."""
        digest = self._known(credential)
        return self.of_digest(digest) if digest else self._tenant(credential)

    def _known(self, credential: Credential) -> str:
        """Of the first key that is a client's or a group member's; "" where none is."""
        if self._group_of or self._clients:
            for name, value in credential:
                digest = digest_of(value) if name in SECRETS else ""
                if digest in self._group_of or digest in self._clients:
                    return digest
        return ""

    def as_member(self, taken: Taken) -> Taken:
        """What a member of a group sends on: its own key alone of all credentials.

        Another one beside it could pay for, and answer for, all members. What chooses an account
        of that key is in the key of its entries, since the tenant does not tell it. Others send
        what they sent: all of it makes their tenant.
        """
        digest = self._known(taken.credential) if self._group_of else ""
        if digest not in self._group_of:
            return taken
        own: list[tuple[bytes, bytes]] = []
        accounts: list[tuple[bytes, bytes]] = []
        for pair in taken.credential:
            if pair[0] not in SECRETS:
                accounts.append(pair)
            elif not own and digest_of(pair[1]) == digest:
                own.append(pair)
        keyed = sorted((*taken.keyed, *accounts), key=lambda pair: pair[0])
        return msgspec.structs.replace(taken, keyed=tuple(keyed), credential=(*own, *accounts))

    def member(self, credential: Credential) -> bytes:
        """Who of a group asks: a keyed digest, 16 bytes; b"" where no group's key is shown."""
        digest = self._known(credential) if self._group_of else ""
        if digest not in self._group_of:
            return b""
        name = self._name_of.get(digest)
        return self._member(b"key", digest) if name is None else self.client_member(name)

    def client_member(self, name: str) -> bytes:
        """The same of a known client: by its name, so that a new key makes nobody of it twice."""
        row = self._rows.get(name)
        if row is None or row.key_sha256 not in self._group_of:
            return b""
        return self._member(b"client", name)

    def somebody(self, tenant: str) -> bytes:
        """Of a tenant that is a group: a member who has asked nothing yet; b"" of any other."""
        shared = {self._tenant(((b"group", name.encode()),)) for name in self._group_of.values()}
        return self._member(b"nobody", tenant) if tenant in shared else b""

    def _member(self, kind: bytes, name: str) -> bytes:
        return bytes.fromhex(self._tenant(((b"member", kind), (b"named", name.encode()))))

    def knows(self, credential: Credential) -> bool:
        """Whether a known client's key is among these headers."""
        return bool(self._clients) and any(
            name in SECRETS and digest_of(value) in self._clients for name, value in credential
        )

    def of_digest(self, digest: str) -> str:
        """The tenant of a known client, or of a group's member, by its key's SHA-256 in hex."""
        group = self._group_of.get(digest)
        if group is not None:
            return self._tenant(((b"group", group.encode()),))
        return self._tenant(((b"client", digest.encode()),))

    def names(self) -> dict[str, list[str]]:
        """By tenant, the names of the known clients it stands for; several where they share it."""
        found: dict[str, list[str]] = {}
        for name, row in self._rows.items():
            found.setdefault(self.of_digest(row.key_sha256), []).append(name)
        return found

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
