"""Decorated streams read in several processes at once: real processes, sockets and kill -9."""

from __future__ import annotations

from pathlib import Path

import pytest

from leaks import until
from thinkonce.host.unix_socket import is_available
from workers import Worker, nursery_of

pytestmark = pytest.mark.skipif(not is_available(), reason="needs Unix sockets")

WORKER = Path(__file__).with_name("stream_worker.py")


class Process(Worker):
    """A worker, and the answers it has given so far."""

    def __init__(self, nursery, folder, name, kind):
        self.name, self.number, self.given = name, 0, {}
        order = {"url": f"sqlite:///{folder / 'answers.db'}", "name": name, "kind": kind}
        super().__init__(nursery, folder, order)
        self.pid = self.answer(0)

    def tell(self, *command):
        """Have it begin something; the number to ask for the answer with."""
        self.number += 1
        self.send([self.number, *command])
        return self.number

    def answer(self, number):
        while number not in self.given:
            said = self.receive()
            self.given[said["id"]] = said["gave"]
        return self.given.pop(number)

    def __call__(self, *command):
        return self.answer(self.tell(*command))

    def told(self, what):
        return self("told")[what]


@pytest.fixture(scope="module")
def nursery():
    with nursery_of(WORKER) as process:
        yield process


@pytest.fixture(params=["sync", "async"])
def start(request, nursery, tmp_path):
    begun = []

    def processes(names):
        begun.extend(Process(nursery, tmp_path, name, request.param) for name in names)
        return begun

    yield processes
    for process in begun:
        process.end()


def items(name, first=0):
    return [*(f"{number} by {name}" for number in range(first, 5)), "the end"]


def test_a_reader_elsewhere_gets_every_item_live_and_from_the_first(start):
    a, b, c = start("abc")
    a("open", "r", "hi")
    assert a("next", "r") == "0 by a"
    for process in (b, c):
        process("open", "r", "hi")
    assert b("next", "r") == "0 by a"
    assert a.told("made") == 1, "nothing is made that nobody asked for"
    assert b("next", "r") == "1 by a", "made for a reader elsewhere, its own has not asked"
    assert a.told("made") == 2
    assert a("next", "r") == "1 by a"
    assert c("rest", "r") == items("a")
    assert a("rest", "r") == items("a", first=2)
    assert b("rest", "r") == items("a", first=2)
    assert [process.told("begun") for process in (a, b, c)] == [1, 0, 0]
    assert [process("stats", "plain", "coalesced") for process in (a, b, c)] == [0, 1, 1]
    assert a("flush")
    b("open", "again", "hi")
    assert b("rest", "again") == items("a")
    assert b.told("begun") == 0, "it was recorded"


def test_a_leader_that_leaves_goes_on_making_items_for_readers_elsewhere(start):
    a, b = start("ab")
    a("open", "r", "hi")
    a("next", "r")
    b("open", "r", "hi")
    assert b("next", "r") == "0 by a"
    a("close", "r")
    assert b("rest", "r") == items("a", first=1)
    assert a("flush")
    a("open", "again", "hi")
    assert a("rest", "again") == items("a")
    assert (a.told("begun"), b.told("begun")) == (1, 0)


def test_when_the_last_reader_elsewhere_leaves_the_source_is_closed(start):
    a, b = start("ab")
    a("open", "r", "hi")
    a("next", "r")
    b("open", "r", "hi")
    b("next", "r")
    a("close", "r")
    assert a.told("closed") == 0
    b("close", "r")
    until(lambda: a.told("closed") == 1, "the end of the source")
    b("open", "r", "hi")
    assert b("rest", "r") == items("b"), "nothing of it was kept"


def test_a_leader_killed_in_mid_stream_is_an_error_only_for_who_got_items(start):
    a, b, c = start("abc")
    a("open", "r", "held")
    a("next", "r")
    b("open", "r", "held")
    assert b("next", "r") == "0 by a"
    waiting = b.tell("next", "r")
    a.kill()
    assert b.answer(waiting).startswith("UpstreamError: the call that was followed gave no result")
    for process in (b, c):
        process("let go")
        process("open", "again", "held")
    assert b("next", "again") == "0 by b"
    assert c("rest", "again") == items("b")
    assert b("rest", "again") == items("b", first=1)


def test_when_a_leader_is_killed_before_its_first_item_one_reader_leads_the_others(start):
    a, b, c = start("abc")
    a("open", "r", "held at once")
    a.tell("next", "r")
    until(lambda: a.told("begun") == 1, "the source")
    asked = []
    for process in (b, c):
        for reader in ("r", "s"):
            process("open", reader, "held at once")
            asked.append((process, process.tell("rest", reader)))
    until(lambda: a("followers") == [3], "readers in two other processes")
    a.kill()
    until(lambda: b.told("begun") + c.told("begun") == 1, "another leader")
    leader = b if b.told("begun") else c
    until(lambda: leader("followers") == [3], "the other readers")
    leader("let go")
    assert [process.answer(number) for process, number in asked] == [items(leader.name)] * 4
    assert b.told("begun") + c.told("begun") == 1


def test_a_cut_connection_is_an_error_in_the_middle_and_a_call_of_ones_own_before(start):
    a, b = start("ab")
    a("open", "r", "held")
    a("next", "r")
    b("open", "r", "held")
    b("next", "r")
    asked = b.tell("next", "r")
    until(lambda: a("followers") == [2], "the reader elsewhere")
    a("cut")
    assert b.answer(asked).startswith("UpstreamError: ")
    a("let go")
    assert a("rest", "r") == items("a", first=1), "whose source it is reads on"


def test_the_failure_of_a_source_reaches_readers_elsewhere(start):
    a, b = start("ab")
    a("open", "r", "failing")
    a("next", "r")
    b("open", "r", "failing")
    assert b("rest", "r") == ["0 by a", "UpstreamError: ConnectionError: lost"]
    assert a("next", "r") == "ConnectionError: lost"


def test_items_cross_with_their_types(start):
    a, b = start("ab")
    a("open", "r", "dicts")
    first = a("next", "r")
    b("open", "r", "dicts")
    assert first == b("next", "r") == "{'number': 0, 'by': ('a', b'bytes')}"


def test_items_of_a_serializer_cross_through_it(start):
    a, b = start("ab")
    a("open", "r", "hi", "serialized")
    a("next", "r")
    b("open", "r", "hi", "serialized")
    assert b("rest", "r") == items("a")
    assert b.told("begun") == 0


def test_items_that_cannot_be_encoded_are_shared_in_their_process_only(start):
    a, b = start("ab")
    a("open", "r", "things", "unkept")
    a("next", "r")
    for reader in ("r", "s"):
        b("open", reader, "things", "unkept")
        assert b("next", reader) == "a thing"
    a("open", "s", "things", "unkept")
    assert a("rest", "s") == ["a thing"] * 5 + ["the end"]
    assert a.told("begun") == 1, "its own readers share it all the same"
    assert b.told("begun") == 2, "each for itself"


def test_readers_who_come_after_a_purge_form_one_new_stream_across_processes(start):
    a, b, c = start("abc")
    a("open", "r", "hi")
    a("next", "r")
    b("purge")
    for process in (b, c, a):
        for reader in ("new", "newer"):
            process("open", reader, "hi")
            assert process("next", reader) == "0 by b"
    assert a("rest", "r") == items("a", first=1), "whoever came before reads on"
    assert c("rest", "new") == items("b", first=1)
    assert [process.told("begun") for process in (a, b, c)] == [1, 1, 0]


def test_in_a_storm_of_readers_in_four_processes_everybody_gets_one_calls_items(start):
    workers = start("abcd")
    asked = [(worker, worker.tell("storm", 10 * turn, 20)) for turn, worker in enumerate(workers)]
    for worker, number in asked:
        ends = worker.answer(number)
        assert ends.keys() == {"whole", "left"}, "errors, or items missing, doubled or of two calls"
        assert sum(ends.values()) == 80
    nothing_under_way(workers)


def test_a_process_killed_in_a_storm_hurts_only_those_who_read_from_it(start):
    killed, *others = start("abcd")
    killed.tell("storm", 0, 1000)
    asked = [(worker, worker.tell("storm", 10 * turn, 20)) for turn, worker in enumerate(others)]
    until(lambda: killed.told("made") > 20, "some way into the storm")
    killed.kill()
    for worker, number in asked:
        ends = worker.answer(number)
        assert ends.keys() <= {"whole", "left", "error"}, "items missing, doubled or of two calls"
        assert sum(ends.values()) == 80
        assert ends.get("error", 0) <= 4, "each of its four readers at most once"
    nothing_under_way(others)


def nothing_under_way(workers):
    for worker in workers:
        until(lambda worker=worker: worker("flights") == 0, "the end of all streams")
        told = worker("told")
        assert told["begun"] == told["closed"]
