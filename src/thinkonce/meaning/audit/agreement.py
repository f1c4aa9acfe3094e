"""How many members of a group vouch for an entry before it answers others in other words.

    A asks ──► entry of A           serves A in other words, nobody else
    B asks it in other words ──► held back ──► the model answers B ──► a judge compares the two
                                                                        └► same: {A, B} vouch
    C asks it in other words ──► as many vouch as are asked for: a hit

A member is told by the key it came with, never by what a request says. Who asks again in words of
its own vouches for nothing: it takes different members. What vouches is bound to the very answer
(its key and when it was made), so a renewed one begins anew. Kept in the ledger, so processes
share it; where there is none it is forgotten with the process.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable

import msgspec

from thinkonce.clock import SYSTEM, Clock
from thinkonce.errors import TierError
from thinkonce.host.fork import free_after_fork, on_fork
from thinkonce.meaning.verdict.origin import Origin
from thinkonce.tiers.tier import Ledger

__all__ = ("MOST_MEMBERS", "Agreement", "Vouching", "adds_no_address")

log = logging.getLogger("thinkonce.semantic")

MOST_MEMBERS = 32  # remembered of those who vouch for one entry; no setting asks for more
REMEMBERED = 10_000  # entries, in this process
REFRESH = 1.0  # seconds between two looks at what other processes found of an entry

_ADDRESS = re.compile(
    r"\b(?:https?|ftp)://[^\s<>\"')\]]+"
    r"|[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
    r"|\b(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}\b(?:/[^\s<>\"')\]]*)?"
    r"|\+?\d(?:[\d ()-]{6,})\d",
    re.IGNORECASE,
)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[bytes]).decode


class Vouching(msgspec.Struct, frozen=True):
    """`member` of `tenant` was held back from an answer, and is now to vouch for it or not."""

    tenant: str
    member: bytes
    entry: bytes
    origin: Origin


class _Known(msgspec.Struct):
    members: frozenset[bytes]
    looked_at: float


class Agreement:
    """Thread-safe. `vouched` counts members that did, `unlike` those whose answer was another."""

    def __init__(self, ledger: Ledger | None = None, *, clock: Clock = SYSTEM) -> None:
        self._ledger, self._clock = ledger, clock
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._unsaved: dict[tuple[str, bytes], frozenset[bytes]] = {}
        self.vouched = self.unlike = 0
        self._lock = threading.Lock()
        on_fork(self._in_child)

    def permits(
        self, tenant: str, member: bytes, needed: int, entry: bytes, origin: Origin
    ) -> bool:
        """Whether `entry` may answer `member` in other words. 20 µs where the store is asked.

        Always where nobody else could have made it: `member` is b"".
        """
        if needed <= 1 or not member or member == origin.member:
            return True
        members = self._members(tenant, origin.mark(entry), needed)
        return member in members or len(members) >= needed

    def members(self, tenant: str, entry: bytes, origin: Origin) -> int:
        """How many vouch for it, whoever made it among them."""
        known = self._members(tenant, origin.mark(entry), MOST_MEMBERS)
        return len(known | _named(origin))

    def compared(self, asked: Vouching, is_same: bool) -> None:
        """What a judge made of both answers. Blocks for the store."""
        if not is_same:
            self.unlike += 1
            return
        self.vouched += 1
        mark = asked.origin.mark(asked.entry)
        self._hold(mark, frozenset((asked.member,)) | _named(asked.origin))
        with self._lock:
            held = self._known[mark].members
            self._unsaved[asked.tenant, mark] = held
            unsaved = dict(list(self._unsaved.items())[-REMEMBERED:])
            self._unsaved = unsaved
        if self._ledger is None:
            return
        for (tenant, name), members in list(unsaved.items()):
            self._save(self._ledger, tenant, name, members)

    def _members(self, tenant: str, mark: bytes, needed: int) -> frozenset[bytes]:
        now = self._clock.monotonic()
        with self._lock:
            known = self._known.get(mark)
        if known is not None and (len(known.members) >= needed or now < known.looked_at + REFRESH):
            return known.members
        if self._ledger is None:
            return frozenset() if known is None else known.members
        try:
            rows = self._ledger.read(_group(tenant), mark)
        except TierError as error:
            log.info("semantic: who agreed cannot be read: %s", error)
            return frozenset() if known is None else known.members
        return self._hold(mark, _read(rows.get(mark, b"")), now)

    def _hold(
        self, mark: bytes, members: frozenset[bytes], looked_at: float = 0.0
    ) -> frozenset[bytes]:
        with self._lock:
            known = self._known.get(mark)
            found = members if known is None else known.members | members
            self._known[mark] = _Known(found, looked_at)
            self._known.move_to_end(mark)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
            return found

    def _save(self, ledger: Ledger, tenant: str, mark: bytes, members: frozenset[bytes]) -> None:
        def change(held: dict[bytes, bytes]) -> dict[bytes, bytes]:
            every = sorted(members | _read(held.get(mark, b"")))
            return {mark: _encode(every[:MOST_MEMBERS])}

        try:
            ledger.update(_group(tenant), {mark}, change)
        except TierError as error:  # with the next one, then
            log.info("semantic: who agreed waits for the store: %s", error)
            return
        with self._lock:
            if self._unsaved.get((tenant, mark)) == members:
                del self._unsaved[tenant, mark]

    def _in_child(self) -> None:
        free_after_fork(self._lock)
        self._unsaved.clear()  # the parent's to write


def adds_no_address(stored: str, fresh: str) -> bool:
    """Whether `stored` sends its reader nowhere that `fresh` does not: links, mail, telephones.

    Two answers that mean the same may differ in a sentence; whoever plants one adds an address.
    """
    named = {each.strip(".,;:").lower() for each in _ADDRESS.findall(fresh)}
    return all(each.strip(".,;:").lower() in named for each in _ADDRESS.findall(stored))


def _group(tenant: str) -> str:
    return f"agreement {tenant}"


def _named(origin: Origin) -> frozenset[bytes]:
    return frozenset((origin.member,)) if origin.member else frozenset()


def _read(data: bytes) -> frozenset[bytes]:
    """Nobody, where it is damaged."""
    try:
        members: Iterable[bytes] = _decode(data) if data else ()
    except (msgspec.DecodeError, UnicodeDecodeError):
        members = ()
    return frozenset(members)
