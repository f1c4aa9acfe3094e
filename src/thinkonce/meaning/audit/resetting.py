"""Accounts of audits begun anew in the store, for whoever mended what the alarms were about."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from thinkonce.meaning.audit.account import HEAD
from thinkonce.meaning.audit.account_name import read_account_name
from thinkonce.meaning.audit.budget import Budget
from thinkonce.tiers.tier import Ledger

__all__ = ("reset_stored",)

_encode = msgspec.msgpack.Encoder().encode
_budget = msgspec.msgpack.Decoder(Budget).decode


def reset_stored(
    ledger: Ledger, namespace: str | None, tenant: str | None, but: Collection[str] = ()
) -> set[str]:
    """Names of the accounts that were reset; None is any namespace, or tenant. Histories stay.

    Processes that hold one of them see it within seconds. `but`: names that the caller sees to.
    Raises TierError.
    """
    found = set()
    for group in ledger.groups():
        name = read_account_name(group)
        if name is not None and group not in but and name.is_of(namespace, tenant):
            ledger.update(group, (HEAD,), _begun_anew)
            found.add(group)
    return found


def _begun_anew(held: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """What cannot be read begins anew by itself where it is next used."""
    try:
        budget = _budget(held.get(HEAD, b""))
    except (msgspec.DecodeError, ValueError, UnicodeDecodeError):
        return {}
    budget.reset()
    return {HEAD: _encode(budget)}
