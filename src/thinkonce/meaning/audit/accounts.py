"""The accounts of audits that are in memory, one for each tenant, namespace, language and basis.

    a new one, no room ──► quiet ones leave first, of the tenant that has most, unused for longest
                           └► with a store: its audits are there, and come back with it
                           └► without: what is known to be wrong of it is put by, and comes back

Clients choose namespaces, and where keys are not checked tenants too: how many there are is up to
them. Nobody gets rid of an alarm by asking under many names.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict

from thinkonce.host.fork import free_after_fork, on_fork
from thinkonce.meaning.audit.account import HEAD, Account
from thinkonce.meaning.audit.account_name import read_account_name

__all__ = ("MOST_ACCOUNTS", "MOST_PUT_BY", "Accounts")

MOST_ACCOUNTS = 1024
MOST_PUT_BY = 16_384  # budgets after an alarm, some 300 bytes each


class Accounts:
    """Thread-safe. `persistent`: there is a store that has what leaves."""

    def __init__(self, *, persistent: bool) -> None:
        self._persistent = persistent
        self._held: OrderedDict[str, Account] = OrderedDict()  # unused for longest first
        self._put_by: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()
        on_fork(self._in_child)

    def get(self, group: str) -> Account | None:
        with self._lock:
            found = self._held.get(group)
            if found is not None:
                self._held.move_to_end(group)
            return found

    def add(self, account: Account) -> Account:
        """The one of its name, which another thread may have added first."""
        with self._lock:
            known = self._held.get(account.group)
            if known is not None:
                return known
            head = self._put_by.pop(account.group, None)
            if head is not None:
                account.seen({HEAD: head})
            if len(self._held) >= MOST_ACCOUNTS:
                self._make_room()
            self._held[account.group] = account
            return account

    def all(self) -> list[Account]:
        with self._lock:
            return list(self._held.values())

    def of(self, namespace: str | None, tenant: str | None) -> list[Account]:
        """In every language; None is any."""
        return [one for one in self.all() if _is_of(one.group, namespace, tenant)]

    def forget(self, namespace: str | None, tenant: str | None) -> int:
        """Budgets that are put by after an alarm; how many there were."""
        with self._lock:
            found = [group for group in self._put_by if _is_of(group, namespace, tenant)]
            for group in found:
                del self._put_by[group]
        return len(found)

    def _make_room(self) -> None:
        """What waits for the store stays, so that no result is lost, unless all do."""
        many = Counter(one.tenant for one in self._held.values())
        leaving = min(
            self._held.values(),
            key=lambda one: (one.waiting > 0, one.alarms > 0, -many[one.tenant]),
        )
        del self._held[leaving.group]
        if self._persistent or not leaving.alarms:
            return
        self._put_by[leaving.group] = leaving.head
        if len(self._put_by) > MOST_PUT_BY:
            self._put_by.popitem(last=False)

    def _in_child(self) -> None:
        free_after_fork(self._lock)


def _is_of(group: str, namespace: str | None, tenant: str | None) -> bool:
    name = read_account_name(group)
    return name is not None and name.is_of(namespace, tenant)
