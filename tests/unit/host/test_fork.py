"""Locks that another thread held at a fork: in the child nobody would ever free them."""

from __future__ import annotations

import ast
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import thinkonce
from standins import PATIENCE, forked
from thinkonce.circuit import Circuit
from thinkonce.clock import SYSTEM
from thinkonce.functions import Receiver
from thinkonce.selector import Selector
from thinkonce.tally import Ledger
from thinkonce.tiers.purges import LocalPurges

SRC = Path(thinkonce.__file__).parent
LOCKS = {"Lock", "RLock", "Condition"}

# What frees its lock otherwise, or needs not.
BY_OTHERS = {
    "flights/flight.py Flight": "its table's, which Flights frees; its own ends with its call",
    "gateway/saving.py Keeper": "an asyncio lock: a forked child has no loop to wait for it in",
    "gateway/workers/parent.py _Parent": "an asyncio lock, as the one above",
    "gateway/workers/worker.py _WorkerServer": "an asyncio lock, as the one above",
    "host/lock.py FileLock": "HostFile makes a new one in the child",
    "kv/": "a model, and what is kept for it, stays in its process: torch's threads do not fork",
    "flights/leading.py": "freed at its definition, for the process",
    "meaning/audit/audits.py Audits": "makes a new one in the child",
    "meaning/background.py Background": "makes a new one in the child",
    "meaning/index/flat.py FlatIndex": "Spaces lets go of it in the child",
    "meaning/index/graph.py GraphIndex": "Spaces lets go of it in the child",
    "meaning/in_time.py InTime": "makes a new one in the child",
    "meaning/index/space.py Space": "Spaces lets go of it in the child",
    "meaning/index/spaces.py Spaces": "makes a new one in the child",
    "flights/sharing.py Sharing": "Flights has it freed",
    "calls/streams.py SharedStream": "a stream under way is the parent's; too many to name each",
    "testing/faults.py": "for tests, which do not fork with it",
    "tiers/database.py": "held during the fork by the thread that forks, see `hold`",
    "tiers/sqlite_purges.py SqlitePurges": "the tier has it make a new one",
    "web/line_queue.py LineQueue": "begun by gateways, which start processes and never fork",
    "tiers/writer.py WriteBehind": "the tier makes a new one in the child",
}


def locks() -> Iterator[tuple[str, str, str]]:
    """(where, attribute, source of the class) of every lock that lives longer than a call."""
    for path in sorted(SRC.rglob("*.py")):
        text = path.read_text()
        for node in ast.parse(text).body:
            named = isinstance(node, ast.ClassDef)
            where = path.relative_to(SRC).as_posix() + (f" {node.name}" if named else "")
            for each in ast.walk(node):
                if isinstance(each, ast.Assign) and makes_lock(each.value):
                    target = ast.unparse(each.targets[0])
                    if not named or target.startswith("self."):
                        yield where, target, ast.get_source_segment(text, node) or ""


def excuses(place: str, where: str) -> bool:
    """A class, a file, or a folder that ends in a slash."""
    return (
        where in (place, f"{place} ")
        or where.split(" ")[0] == place
        or (place.endswith("/") and where.startswith(place))
    )


def makes_lock(value: ast.expr) -> bool:
    return any(
        isinstance(call, ast.Call) and ast.unparse(call.func).rpartition(".")[2] in LOCKS
        for call in ast.walk(value)
    )


def test_every_lock_is_freed_in_a_child_or_has_a_reason_not_to_be() -> None:
    found = list(locks())
    assert len(found) > 15, "the search finds locks at all"
    excused = set()
    for where, name, source in found:
        known = {place for place in BY_OTHERS if excuses(place, where)}
        excused |= known
        is_freed = f"free_after_fork({name})" in source and "on_fork(" in source
        assert is_freed or known, f"{where}: who frees {name} in a forked child?"
    assert excused == BY_OTHERS.keys(), "reasons for locks that are no more"


class Named:
    """Something that has no key of its own, so that it gets a serial."""


OWNERS = {
    "purges": (LocalPurges, lambda purges: purges.append(Selector())),
    "ledger": (Ledger, lambda ledger: ledger.total()),
    "receiver": (Receiver, lambda names: names.name(Named(), "f", persistent=False)),
    "circuit": (lambda: Circuit("writing", SYSTEM), lambda circuit: circuit.failed(OSError())),
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("name", OWNERS)
def test_a_child_is_not_stopped_by_a_lock_of_its_parent(name: str) -> None:
    make, use = OWNERS[name]
    owner = make()
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with owner._lock:
            held.set()
            assert go_on.wait(PATIENCE)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(PATIENCE)
    code = forked(lambda: use(owner) is not NotImplemented)
    go_on.set()
    holder.join(PATIENCE)
    assert code == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_forked_in_the_middle_of_a_purge_knows_no_purges_rather_than_half_of_one() -> None:
    purges = LocalPurges()
    purges.append(Selector())
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with purges._lock:
            held.set()
            assert go_on.wait(PATIENCE)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(PATIENCE)
    code = forked(lambda: purges.since(0) is None and purges.since(1) == [])
    go_on.set()
    holder.join(PATIENCE)
    assert code == 0
    assert len(purges.since(0) or ()) == 1
