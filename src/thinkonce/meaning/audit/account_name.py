"""What an account of audits is called, in memory and in the store."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from thinkonce.meaning.audit.budget import Mode
from thinkonce.meaning.verdict.grounds import Grounds

__all__ = ("AccountName", "account_name", "read_account_name")

_KIND = "audits"


class AccountName(NamedTuple):
    """The parts that somebody may ask for."""

    language: str
    tenant: str
    namespace: str

    def is_of(self, namespace: str | None, tenant: str | None) -> bool:
        """None is any."""
        return namespace in (None, self.namespace) and tenant in (None, self.tenant)


def account_name(tenant: str, namespace: str, grounds: Grounds, mode: Mode) -> str:
    """Another basis or mode is another account. Only a namespace, which comes last, may hold a
    blank, so no two have one name."""
    basis = hashlib.blake2b(f"{grounds.basis} {mode}".encode(), digest_size=8).hexdigest()
    return f"{_KIND} {grounds.language} {basis} {tenant} {namespace}"


def read_account_name(name: str) -> AccountName | None:
    """None for what is no account of audits."""
    kind, *parts = name.split(" ", 4)
    if kind != _KIND or len(parts) != 4:
        return None
    language, _, tenant, namespace = parts
    return AccountName(language, tenant, namespace)
