"""One call for many askers in several processes: real processes, real sockets, real kill -9."""

from __future__ import annotations

import contextvars
import json
import os
import signal
import socket
import struct
import tempfile
import threading
from collections import Counter
from pathlib import Path

import msgspec
import pytest

import places
from leaks import nothing_left, until
from standins import PATIENCE
from thinkonce.errors import UpstreamError
from thinkonce.flights.replay import raised, told
from thinkonce.flights.singleflight import Codec, Fate, Flight, Flights, Role, Since
from thinkonce.host.flights import FlightTable
from thinkonce.host.frames import HEAD, Kind, Unframer, frame, hello
from thinkonce.host.mapfile import HostFile
from thinkonce.host.process import state_of, this_process
from thinkonce.host.roster import SLOTS, Roster, ask_to_share
from thinkonce.host.unix_socket import connect, is_available, listen
from thinkonce.testing.clock import FakeClock
from workers import Worker, nursery_of

pytestmark = pytest.mark.skipif(not is_available(), reason="needs Unix sockets")

WORKER = Path(__file__).with_name("flight_worker.py")
DIGEST = b"k".ljust(32, b".")
LONG = 3600.0  # a lease that no test outlives
CODEC = Codec(lambda value: json.dumps(value).encode(), json.loads)


class Process(Worker):
    """A worker, and the answers it has given so far."""

    def __init__(self, nursery, path, lease):
        self.given, self.number = {}, 0
        order = {"path": str(path), "lease": lease, "runtime": os.environ["XDG_RUNTIME_DIR"]}
        super().__init__(nursery, path.parent, order)
        self.pid = self.answer("pid")["pid"]

    def tell(self, do, **command):
        """Have it begin something; the number to ask for the answer with."""
        self.number += 1
        self.send({"id": self.number, "do": do, **command})
        return self.number

    def answer(self, number):
        while number not in self.given:
            answer = self.receive()
            self.given[answer.pop("id")] = answer
        return self.given.pop(number)

    def do(self, do, **command):
        return self.answer(self.tell(do, **command))

    def end(self):
        super().end(lambda: self.answer("end"))


@pytest.fixture(scope="module")
def nursery():
    with nursery_of(WORKER) as process:
        yield process


@pytest.fixture(autouse=True)
def leaves_nothing():
    with nothing_left():
        yield


@pytest.fixture
def path():
    """Short, so that sockets fit beside it: names of sockets have at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="t") as folder:
        yield Path(folder) / "a.host"


@pytest.fixture(autouse=True)
def own_runtime_folder(monkeypatch):
    """Where sockets go whose store lies too deep."""
    with tempfile.TemporaryDirectory(prefix="t") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


@pytest.fixture
def start(nursery, path):
    begun = []

    def one(path=path, lease=LONG):
        begun.append(Process(nursery, path, lease))
        return begun[-1]

    yield one
    for process in begun:
        process.end()


@pytest.fixture
def here(path):
    """This process, taking part."""
    host = HostFile(path)
    flights = Flights(host, codec=CODEC, lease=LONG)
    yield flights
    flights.close()
    flights.close()
    host.close()


def join(flights, key="k"):
    return flights.join(key, lambda: key.encode().ljust(32, b"."))


def accompany(path):
    """Somebody else takes part: what is made is written down from the start."""
    host = HostFile(path)
    Roster(host).enter(b"nobody")
    host.close()


def claims(path):
    host = HostFile(path)
    found = [claim.digest for claim in places.claims(FlightTable(host))]
    host.close()
    return found


def test_16_processes_with_two_askers_each_on_one_key_make_one_call(start, path):
    workers = [start() for _ in range(16)]
    asked = [(w, seat, w.tell("join", seat=seat)) for w in workers for seat in ("a", "b")]
    roles = [(w, seat, w.answer(number)["role"]) for w, seat, number in asked]
    ((leader, seat),) = [(w, seat) for w, seat, role in roles if role == Role.LEAD]
    following = [(w, w.tell("follow", seat=seat)) for w, seat, role in roles if role == Role.FOLLOW]
    assert len(following) == 31
    until(lambda: leader.do("followers", seat=seat)["followers"] == 16, "15 others and 1 here")
    leader.do("land", seat=seat, value="the one answer")
    assert {w.answer(number)["value"] for w, number in following} == {"the one answer"}
    assert claims(path) == [], "an ended call leaves the table at once"


def test_a_follower_elsewhere_gets_every_chunk_live_and_from_the_first(start):
    leader, early, late = start(), start(), start()
    assert leader.do("join")["role"] == Role.LEAD
    leader.do("publish", chunk="one")
    assert early.do("join")["role"] == Role.FOLLOW
    number = early.tell("chunks")
    assert early.answer(f"{number}.1")["chunk"] == "one"
    for turn in range(2, 12):
        leader.do("publish", chunk=f"chunk {turn}")
        assert early.answer(f"{number}.{turn}")["chunk"] == f"chunk {turn}", "live, not at the end"
    assert late.do("join")["role"] == Role.FOLLOW
    other = late.tell("chunks")
    assert late.answer(f"{other}.11")["chunk"] == "chunk 11"
    leader.do("land", value={"whole": "answer"})
    for worker, asked in ((early, number), (late, other)):
        answer = worker.answer(asked)
        assert answer["chunks"] == ["one", *(f"chunk {turn}" for turn in range(2, 12))]
        assert (answer["fate"], answer["value"]) == (Fate.COALESCED, {"whole": "answer"})


def test_an_answer_that_has_just_landed_can_still_be_followed_from_elsewhere(path):
    # A process that looked into the store before the answer was committed there asks now.
    host, other = HostFile(path), HostFile(path)
    here = Flights(host, codec=CODEC, lease=LONG, linger=LONG)
    elsewhere = Flights(other, codec=CODEC, lease=LONG)
    leader = join(here)
    leader.land("the answer")
    late = join(elsewhere)
    assert late.role is Role.FOLLOW
    assert late.follow(LONG).unwrap() == "the answer"
    # Not so here, where it was kept before it landed.
    again = join(here)
    assert again.role is Role.LEAD
    again.abandon()
    assert claims(path) == [], "what is asked for anew lingers no longer"
    elsewhere.close()
    here.close()
    host.close()
    other.close()


def test_who_asks_after_that_is_not_given_the_answer(path):
    # The thread sleeps for `linger` seconds of real time; the clock goes faster.
    clock, host, other = FakeClock(), HostFile(path), HostFile(path)
    here = Flights(host, codec=CODEC, clock=clock, lease=LONG, linger=LONG / 2)
    elsewhere = Flights(other, codec=CODEC, clock=clock, lease=LONG)
    join(here).land("the answer")
    here.sharing._open_feed(DIGEST).close()
    clock.advance(LONG / 2)
    assert here.sharing._open_feed(DIGEST) is None
    late = join(elsewhere)
    assert late.follow(LONG).fate is Fate.LEAD
    late.land("a newer one")
    for flights, file in ((elsewhere, other), (here, host)):
        flights.close()
        file.close()


def test_what_lingers_is_let_go_though_nothing_else_happens(path):
    accompany(path)
    clock, host = FakeClock(), HostFile(path)
    here = Flights(host, codec=CODEC, clock=clock, lease=LONG, linger=0.02)
    for _ in range(3):  # from the second time on, its thread sleeps until something happens
        join(here).land("the answer")
        assert claims(path)
        clock.advance(0.03)
        until(lambda: not claims(path), "the end of what lingers")
    here.close()
    host.close()


def test_another_lease_holds_for_what_begins_from_then_on(path):
    accompany(path)
    clock, host = FakeClock(), HostFile(path)
    flights = Flights(host, codec=CODEC, clock=clock, lease=10.0)
    first = join(flights)
    flights.adopt(LONG)
    second = join(flights, "another key")
    leases = [claim.until - clock.monotonic() for claim in places.claims(FlightTable(host))]
    assert sorted(leases) == [10.0, LONG]
    assert second.flight.expires_at - first.flight.expires_at == LONG - 10
    first.abandon()
    second.abandon()
    flights.close()
    host.close()


def test_an_error_crosses_with_its_name_and_message(start):
    leader, follower = start(), start()
    leader.do("join")
    follower.do("join")
    asked = follower.tell("follow")
    until(lambda: leader.do("followers")["followers"] == 1)
    leader.do("fail", message="429 slow down")
    answer = follower.answer(asked)
    assert answer["fate"] == Fate.FAILED
    assert answer["error"] == ["UpstreamError", "UpstreamError: 429 slow down"]
    assert follower.do("join")["role"] == Role.LEAD, "the next asker begins a new call"


class TooBusy(UpstreamError, crosses=True):
    """Made of plain values."""

    def __init__(self, status, headers):
        if not isinstance(status, int):
            raise TypeError(f"a status is a number, got {status!r}")
        super().__init__(status, headers)
        self.status, self.headers = status, headers


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (TooBusy(529, [[b"retry-after", b"7"]]), TooBusy, "(529, [[b'retry-after', b'7']])"),
        (TooBusy(529, object), UpstreamError, "TooBusy: (529, <class 'object'>)"),
        (UpstreamError("x" * 20_000), UpstreamError, "UpstreamError: " + "x" * 10_000),
    ],
    ids=["as itself", "not of plain values", "long"],
)
def test_an_error_of_a_class_that_crosses_arrives_as_what_it_is(path, error, kind, said):
    host, other = HostFile(path), HostFile(path)
    here = Flights(host, codec=CODEC, lease=LONG)
    elsewhere = Flights(other, codec=CODEC, lease=LONG)
    lead = contextvars.Context().run(join, here)
    follower = join(elsewhere)
    until(lambda: lead.followers == 1, "the follower")
    lead.fail(error)
    with pytest.raises(UpstreamError) as caught:
        follower.follow(LONG).unwrap()
    assert (type(caught.value), str(caught.value)) == (kind, said)
    for closing in (elsewhere, here, host, other):
        closing.close()


def test_arguments_that_no_longer_fit_leave_an_error_in_words():
    error = TooBusy(529, [])
    error.args = ("many", [])
    assert str(raised(told(error))) == "TooBusy: ('many', [])"


def test_when_the_leader_is_killed_one_of_all_followers_leads(start):
    leader, others = start(), [start() for _ in range(3)]
    leader.do("join")
    asked = []
    for worker in others:
        for seat in ("a", "b"):
            assert worker.do("join", seat=seat)["role"] == Role.FOLLOW
            asked.append((worker, seat, worker.tell("follow", seat=seat)))
    until(lambda: leader.do("followers")["followers"] == 3)
    leader.kill()
    elected = None
    while elected is None:
        # Only the elected gets an answer before there is a new leader's result.
        for worker, seat, number in asked:
            if (found := poll(worker, number)) is not None:
                assert found["fate"] == Fate.LEAD, found
                elected = (worker, seat, number)
                break
    worker, seat, number = elected
    # Who learns of the death later finds the new call, as long as it is under way.
    until(lambda: worker.do("followers", seat=seat)["followers"] == 3)
    worker.do("land", seat=seat, value="by the new leader")
    rest = [(w, n) for w, _, n in asked if (w, n) != (worker, number)]
    answers = [w.answer(n) for w, n in rest]
    assert {(a["fate"], a["value"]) for a in answers} == {(Fate.COALESCED, "by the new leader")}


def poll(worker, number):
    """The answer if the worker has given it by now. A question behind it makes that certain."""
    worker.do("table")
    return worker.given.get(number)


def test_a_leader_killed_in_mid_stream_is_an_error_only_for_who_got_chunks(start):
    leader, reader, waiter = start(), start(), start()
    leader.do("join")
    leader.do("publish", chunk="half an answer")
    reader.do("join")
    reading = reader.tell("chunks")
    reader.answer(f"{reading}.1")
    waiter.do("join")
    waiting = waiter.tell("follow")
    until(lambda: leader.do("followers")["followers"] == 2)
    leader.kill()
    assert "gave no result" in reader.answer(reading)["error"]
    assert waiter.answer(waiting)["fate"] == Fate.LEAD


def test_a_leader_that_gives_up_is_followed_by_another_process(start):
    leader, follower = start(), start()
    leader.do("join")
    follower.do("join")
    asked = follower.tell("follow")
    until(lambda: leader.do("followers")["followers"] == 1)
    leader.do("abandon")
    assert follower.answer(asked)["fate"] == Fate.LEAD
    assert leader.do("join")["role"] == Role.FOLLOW, "the roles have changed"
    asked = leader.tell("follow")
    until(lambda: follower.do("followers")["followers"] == 1)
    follower.do("land", value=7)
    assert leader.answer(asked)["value"] == 7


def test_a_stopped_leader_is_replaced_when_its_lease_is_over(start):
    leader, follower, third = start(), start(), start()
    leader.do("join")
    follower.do("join")
    asked = follower.tell("follow")
    until(lambda: leader.do("followers")["followers"] == 1)
    os.kill(leader.pid, signal.SIGSTOP)
    follower.do("advance", seconds=LONG - 10)
    assert poll(follower, asked) is None
    follower.do("advance", seconds=10)
    assert follower.answer(asked)["fate"] == Fate.THROUGH, "nobody waits longer than a lease"
    assert follower.do("join")["role"] == Role.LEAD
    os.kill(leader.pid, signal.SIGCONT)
    leader.do("land", value="late")
    assert third.do("join")["role"] == Role.FOLLOW, "a late end must not end the new call"
    follower.do("land", value="new")


def test_a_leader_that_shows_life_keeps_followers_elsewhere_waiting(start):
    leader, follower = start(), start()
    leader.do("join")
    follower.do("join")
    asked = follower.tell("follow")
    until(lambda: leader.do("followers")["followers"] == 1)
    for say in ("renew", "publish"):
        for worker in (leader, follower):
            worker.do("advance", seconds=LONG - 10)
        leader.do(say, **({"chunk": "x"} if say == "publish" else {}))
        until(lambda: follower.do("silence")["seconds"] < LONG / 2, "the sign of life")
    assert poll(follower, asked) is None
    assert start().do("join")["role"] == Role.FOLLOW, "its claim was renewed as well"
    leader.do("land", value=1)
    assert follower.answer(asked)["value"] == 1


def test_the_leader_knows_who_still_follows(start):
    leader, follower = start(), start()
    leader.do("join")
    follower.do("join")
    asked = follower.tell("follow", timeout=0.01)
    assert follower.answer(asked)["fate"] == Fate.THROUGH
    until(lambda: leader.do("followers")["followers"] == 0)
    assert follower.do("table")["flights"] == 0, "a copy that nobody follows is dropped"
    leader.do("land", value=1)


def test_what_cannot_be_encoded_is_not_shared(start, here):
    follower = start()
    seat = join(here)
    follower.do("join")
    asked = follower.tell("follow")
    until(lambda: seat.followers == 1)
    seat.land(object())
    assert follower.answer(asked)["fate"] == Fate.THROUGH


def test_a_large_result_crosses_whole(start, here):
    leader = start()
    leader.do("join")
    seat = join(here)
    assert seat.role is Role.FOLLOW
    chunks = seat.chunks()
    leader.do("publish", chunk="x" * 1000, times=3000)
    leader.do("land", value="y" * 5_000_000)
    assert sum(len(chunk) for chunk in chunks) == 3_000_000
    assert len(seat.landing.value) == 5_000_000


def test_a_circle_through_three_processes_is_broken_once(start):
    workers, ring = [start() for _ in range(3)], ("a", "b", "c")
    asked = []
    for turn, worker in enumerate(workers):
        number = worker.tell("nest", outer=ring[turn], inner=ring[(turn + 1) % 3])
        assert worker.answer(f"{number}.1")["role"] == Role.LEAD
        asked.append(number)
    for worker in workers:
        worker.do("go_on")
    answers = [worker.answer(number) for worker, number in zip(workers, asked, strict=True)]
    fates = sorted(answer["fate"] for answer in answers)
    assert Fate.THROUGH in fates, "with a lease of an hour, a circle would hold for an hour"
    assert all("never end" in a["why"] for a in answers if a["fate"] == Fate.THROUGH)


def test_a_refused_wait_leaves_no_trace(here, path):
    accompany(path)
    host = HostFile(path)
    others = Flights(host, codec=CODEC, lease=LONG)
    theirs = contextvars.Context().run(join, others, "b")
    table = others.sharing.table
    assert table.may_wait([theirs.flight.claim], b"a".ljust(32, b"."), others.now())
    mine = join(here, "a")
    landing = join(here, "b").follow()
    assert (landing.fate, "never end" in landing.why) == (Fate.THROUGH, True)
    assert mine.flight.leader.waits_for == []
    theirs.land(1)
    mine.land(1)
    others.close()
    host.close()


def test_what_goes_wrong_in_one_job_stops_no_other(here, caplog):
    join(here).land(1)
    exchange, done = here.sharing._exchange, threading.Event()
    exchange.call(lambda: 1 / 0)
    exchange.call(done.set)
    assert done.wait(PATIENCE)
    assert "flights.job_failed" in caplog.text


def test_nor_what_goes_wrong_in_giving_a_peer_up(here, monkeypatch, caplog):
    monkeypatch.setattr("thinkonce.host.flight_socket.LOOK_SECONDS", 0.01)
    monkeypatch.setattr("thinkonce.host.flight_peers.HELLO_SECONDS", 0.0)
    monkeypatch.setattr("thinkonce.host.flight_peers.Serving.give_up", lambda peer: 1 / 0)
    join(here).land(1)
    exchange, done = here.sharing._exchange, threading.Event()
    silent = connect(exchange.address)
    silent.settimeout(PATIENCE)
    assert silent.recv(1) == b"", "it was dropped"
    exchange.call(done.set)
    assert done.wait(PATIENCE)
    assert "flights.peer_failed" in caplog.text
    silent.close()


def test_should_the_thread_end_its_calls_go_on_unshared(here, path, caplog):
    host, mine, ran = HostFile(path), join(here), threading.Event()
    elsewhere = Flights(host, codec=CODEC, lease=LONG)
    exchange = here.sharing._exchange
    exchange._upkeep = lambda: 1 / 0
    exchange.call(lambda: None)
    until(lambda: not exchange._thread.is_alive(), "the end of the thread")
    assert claims(path) == []
    assert not exchange.path.exists()
    theirs = contextvars.Context().run(join, elsewhere)
    assert theirs.role is Role.LEAD, "nobody follows a call that nobody serves"
    exchange.call(ran.set)
    assert ran.is_set(), "what still comes to it does not wait for ever"
    for seat in (mine, theirs):
        seat.land(1)
    assert "flights.thread_ended" in caplog.text
    elsewhere.close()
    host.close()


def test_a_copy_of_a_call_begun_before_a_purge_is_joined_by_nobody_who_asks_after_it(here, path):
    def asking(flights, since=None):
        return contextvars.Context().run(flights.join, "k", lambda: DIGEST, since)

    host = HostFile(path)
    elsewhere = Flights(host, codec=CODEC, lease=LONG)
    leader = asking(here, Since(0, lambda epoch: False))
    unconcerned = asking(elsewhere)
    assert unconcerned.role is Role.FOLLOW
    after = asking(elsewhere, Since(1, lambda epoch: epoch < 1))
    assert after.role is Role.LEAD, "the copy is as old as the call it copies"
    until(lambda: leader.followers, "the follower from elsewhere")
    leader.land("from before")
    after.land("from after")
    assert unconcerned.follow(LONG).unwrap() == "from before"
    elsewhere.close()
    host.close()


class Demand:
    """A source of chunks that notes what is wanted of it."""

    def __init__(self):
        self.count, self.told = 0, threading.Event()

    def want(self, count):
        self.count = count
        self.told.set()

    def deserted(self):
        pass


def test_what_is_wanted_at_once_of_a_leader_elsewhere_reaches_him(here, path, monkeypatch):
    def impatient(flight, source):
        draw_from(flight, source)
        source.want(7)  # as a reader does that draw_from has woken

    leader, demand, draw_from = join(here), Demand(), Flight.draw_from
    leader.flight.draw_from(demand)
    monkeypatch.setattr(Flight, "draw_from", impatient)
    host = HostFile(path)
    elsewhere = Flights(host, codec=CODEC, lease=LONG)
    follower = contextvars.Context().run(join, elsewhere)
    assert demand.told.wait(PATIENCE)
    assert demand.count == 7
    leader.land("the answer")
    assert follower.follow(LONG).unwrap() == "the answer"
    elsewhere.close()
    host.close()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_shares_calls_but_not_its_parents_sockets(here, path):
    parent = join(here)
    assert parent.role is Role.LEAD
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            from thinkonce.flights import leading

            leading._innermost.set(None)
            seat = join(here)
            os.write(tell, seat.role.encode())
            status = 0 if seat.follow().unwrap() == "from the parent" else 2
            parent.land("from the child")  # not its own: without effect outside
        finally:
            here.close()
            os._exit(status)
    assert os.read(ready, 20) == Role.FOLLOW.encode()
    until(lambda: parent.followers == 1)
    parent.land("from the parent")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.close(ready)
    os.close(tell)
    again = join(here)
    assert again.role is Role.LEAD
    again.land(1)


@pytest.mark.parametrize(
    ("asks", "victims"),
    [(150, 3), pytest.param(3000, 12, marks=pytest.mark.slow)],
    ids=["gust", "storm"],
)
def test_whoever_is_killed_everybody_else_gets_an_answer_and_nothing_is_left(
    start, path, asks, victims
):
    stay = [start() for _ in range(2)]
    asked = [
        (worker, worker.tell("storm", asks=asks, keys=3, seed=f"{turn}/{thread}"))
        for turn, worker in enumerate(stay)
        for thread in range(4)
    ]
    for turn in range(victims):
        victim = start()
        for thread in range(4):
            victim.tell("storm", asks=10**6, keys=3, seed=f"victim {turn}/{thread}")
        victim.do("table")  # it is in the middle of it
        victim.kill()
    # A lease lasts an hour here: whoever waited for a dead process would wait for us to notice.
    answers = [worker.answer(number) for worker, number in asked]
    ends = sum((Counter(answer["ends"]) for answer in answers), Counter())
    assert ends["led"] > 0
    assert ends["coalesced"] > 0
    for worker in stay:
        assert worker.do("table")["flights"] == 0
    mine = {worker.pid for worker in stay}
    host = HostFile(path)
    left = [claim.owner.pid for claim in places.claims(FlightTable(host))]
    host.close()
    assert mine.isdisjoint(left), "the living have given back what they claimed"


# -- bad peers -------------------------------------------------------------------------------


def talk(address, *pieces):
    """Connect as a follower would, say `pieces`, and return what comes back until the end."""
    peer = connect(address)
    peer.setblocking(True)
    peer.settimeout(20)
    with peer:
        for piece in pieces:
            peer.sendall(piece)
        heard = b""
        while data := peer.recv(65536):
            heard += data
    return [(frame.kind, frame.payload) for frame in Unframer().feed(heard)]


def test_nonsense_ends_the_connection_and_nothing_else(here):
    seat = join(here)
    address = here.sharing._exchange.address
    for nonsense in (
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(100),
        frame(Kind.LANDED, b"1"),
        frame(Kind.HELLO, b"\xff" + DIGEST),
        HEAD.pack(2**31, Kind.HELLO),
        os.urandom(300) + bytes(8),
    ):
        assert talk(address, nonsense) == []
    assert talk(address, hello(b"unknown".ljust(32))) == [(Kind.ABANDONED, b"")]
    assert here.sharing._exchange._thread.is_alive()
    seat.publish(b"x")
    threading.Thread(target=lambda: (until(lambda: seat.followers), seat.land(1))).start()
    assert talk(address, *(bytes([byte]) for byte in hello(DIGEST))) == [
        (Kind.CHUNK, b"x"),
        (Kind.LANDED, b"1"),
    ]


@pytest.fixture
def false_leader(path, tmp_path):
    """A claim of this process whose socket the test itself serves."""
    host = HostFile(path)
    server = listen(tmp_path / "f.sock")
    server.setblocking(True)
    server.settimeout(20)
    table = FlightTable(host)
    claim = table.claim(DIGEST, os.fsencode(tmp_path / "f.sock"), 0.0, 1e18)
    assert claim.ours
    yield server, table, claim
    server.close()
    host.close()


def say_to_all(server, said, enough):
    """Answer every greeting with `said` and break off, until it is enough."""
    while not enough.is_set():
        peer, _ = server.accept()
        with peer:
            if peer.recv(100):
                peer.sendall(said)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        frame(Kind.CHUNK, b"whole")[:-2],
        frame(Kind.LANDED, b"not json"),
        frame(Kind.FAILED, b"not msgpack"),
        frame(Kind.HELLO, b"?"),
        struct.pack("!IB", 5, 99) + b"1234",
        struct.pack("!IB", 0, 5),
        frame(Kind.ALONE),
    ],
    ids=["nothing", "half a frame", "bad json", "bad error", "greeting", "kind", "length", "alone"],
)
def test_a_leader_that_breaks_off_or_talks_nonsense_is_not_waited_for(
    here, path, false_leader, said
):
    accompany(path)
    server, _, _ = false_leader
    seat = join(here)
    assert seat.role is Role.FOLLOW
    enough = threading.Event()
    serving = threading.Thread(target=say_to_all, args=(server, said, enough))
    serving.start()
    landing = seat.follow()
    enough.set()
    connect(os.fsencode(server.getsockname())).close()
    serving.join()
    assert (landing.fate, seat.role) == (Fate.THROUGH, Role.THROUGH)
    assert len(here) == 0


def test_a_dead_socket_means_a_dead_leader(here, path, false_leader):
    accompany(path)
    server, table, claim = false_leader
    server.close()
    seat = join(here)
    assert seat.role is Role.FOLLOW
    assert seat.follow().fate is Fate.LEAD
    found = places.find(table, DIGEST, 0.0)
    assert found.sequence != claim.sequence, "the place is ours now"
    seat.land(1)
    assert places.find(table, DIGEST, 0.0) is None


def test_a_leader_that_dies_in_the_middle_of_a_frame_is_taken_over(here, path, false_leader):
    accompany(path)
    server, _, _ = false_leader
    seat = join(here)
    peer, _ = server.accept()
    peer.sendall(frame(Kind.CHUNK, b"whole")[:-2])
    server.close()
    peer.close()
    assert seat.follow().fate is Fate.LEAD
    seat.land(1)


def test_a_slow_peer_is_given_up_and_costs_no_memory_meanwhile(here):
    here._max_bytes = 1_000_000
    seat = join(here)
    for _ in range(900):
        seat.publish(bytes(1000))  # what is there already is not copied at one go either
    exchange = here.sharing._exchange
    slow = connect(exchange.address)
    slow.setblocking(True)
    slow.settimeout(20)
    slow.sendall(hello(DIGEST))
    until(lambda: seat.followers == 1)
    (peer,) = exchange.peers

    def full():
        seat.publish(bytes(1000))
        return peer.out

    until(full, "a full socket")
    for _ in range(5000):
        seat.publish(bytes(1000))
    assert len(peer.out) <= 2 * 256 * 1024
    assert seat.flight._kept_bytes <= 1_000_000
    heard, unframer = [], Unframer()
    while not heard or heard[-1].kind is Kind.CHUNK:
        heard += unframer.feed(slow.recv(65536))
    assert heard[-1].kind is Kind.ALONE, "too slow to get everything: told to call himself"
    assert slow.recv(1) == b""
    slow.close()
    until(lambda: seat.followers == 0)
    seat.land(1)


def test_a_peer_that_takes_nothing_is_dropped_in_time(here, monkeypatch):
    from thinkonce.host import flight_peers, flight_socket

    monkeypatch.setattr(flight_peers, "STALL_SECONDS", 0.05)
    monkeypatch.setattr(flight_socket, "LOOK_SECONDS", 0.01)
    seat = join(here)
    stuck = connect(here.sharing._exchange.address)
    stuck.setblocking(True)
    stuck.sendall(hello(DIGEST))
    until(lambda: seat.followers == 1)
    seat.land("y" * 3_000_000)
    until(lambda: not here.sharing._exchange.peers, "the end of its patience")
    stuck.close()


def test_a_peer_that_says_nothing_is_dropped_in_time(here, monkeypatch):
    from thinkonce.host import flight_peers, flight_socket

    monkeypatch.setattr(flight_peers, "HELLO_SECONDS", 0.05)
    monkeypatch.setattr(flight_socket, "LOOK_SECONDS", 0.01)
    seat = join(here)
    with connect(here.sharing._exchange.address) as silent:
        silent.setblocking(True)
        silent.settimeout(20)
        assert silent.recv(1) == b""
    seat.land(1)


def test_sockets_lie_in_a_private_folder_and_dead_ones_are_swept_away(here, path):
    folder = Path(f"{path}.flights")
    folder.mkdir(mode=0o755)
    me = this_process()
    dead = folder / f"{me.space:x}.{me.pid:x}.{me.started + 1:x}.0"
    foreign = folder / f"{me.space + 1:x}.{me.pid:x}.{me.started + 1:x}.0"
    for name in (dead, foreign, folder / "notes.txt"):
        name.touch()
    seat = join(here)
    socket_file = here.sharing._exchange.path
    assert socket_file.parent == folder
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not dead.exists()
    assert foreign.exists(), "another container's process cannot be judged from here"
    seat.land(1)
    here.close()
    assert not socket_file.exists()


def test_a_store_in_a_deep_folder_still_shares(tmp_path, own_runtime_folder, start):
    deep = tmp_path / ("d" * 100) / "answers.db.host"
    deep.parent.mkdir()
    host = HostFile(deep)
    flights = Flights(host, codec=CODEC, lease=LONG)
    seat = join(flights)
    assert flights.sharing._exchange.path.parent == own_runtime_folder / "thinkonce"
    other = start(deep)
    assert other.do("join")["role"] == Role.FOLLOW
    asked = other.tell("follow")
    until(lambda: seat.followers == 1)
    seat.land("deep")
    assert other.answer(asked)["value"] == "deep"
    flights.close()
    host.close()


def test_where_no_socket_can_be_made_calls_are_led_alone(path, monkeypatch):
    from thinkonce.flights import sharing

    def refuse(store, name):
        raise PermissionError("no place")

    monkeypatch.setattr(sharing, "socket_path", refuse)
    host = HostFile(path)
    flights = Flights(host)
    for _ in range(2):
        seat = join(flights)
        assert seat.role is Role.LEAD
        seat.land(b"1")
    flights.close()
    host.close()


def test_a_digest_that_cannot_be_made_leaves_no_flight_behind(here):
    def broken():
        raise ValueError("no digest")

    with pytest.raises(ValueError, match="no digest"):
        here.join("k", broken)
    assert len(here) == 0


def test_closing_lets_followers_elsewhere_go_on(start, here):
    follower = start()
    seat = join(here)
    follower.do("join")
    asked = follower.tell("follow")
    until(lambda: seat.followers == 1)
    here.close()
    assert follower.answer(asked)["fate"] == Fate.LEAD
    seat.land(1)
    again = join(here)
    assert again.role is Role.LEAD, "a closed one goes on alone"
    again.land(1)


def test_the_kernel_tells_whose_process_is_at_the_other_end():
    from thinkonce.host.unix_socket import is_same_user

    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert is_same_user(ours)
    assert not is_same_user(ours), "a closed socket proves nothing"


# -- a process that is alone writes nothing down until another one comes ----------------------


def test_alone_nothing_is_written_down(here, path):
    leader = join(here)
    assert claims(path) == []
    leader.publish(b"first")
    leader.land("the answer")


def test_who_comes_while_calls_are_under_way_follows_each_from_its_first_chunk(start, path):
    alone, late = start(), start()
    for number in range(12):
        assert alone.do("join", seat=f"s{number}", key=f"k{number}")["role"] == Role.LEAD
        alone.do("publish", chunk=f"first of {number}", seat=f"s{number}")
    assert claims(path) == []
    roles = {late.do("join", seat=f"s{number}", key=f"k{number}")["role"] for number in range(12)}
    assert roles == {Role.FOLLOW}
    reading = [late.tell("chunks", seat=f"s{number}") for number in range(12)]
    for number, asked in enumerate(reading):
        assert late.answer(f"{asked}.1")["chunk"] == f"first of {number}"
    for number in range(12):
        alone.do("publish", chunk="last", seat=f"s{number}")
        alone.do("land", value=number, seat=f"s{number}")
    for number, asked in enumerate(reading):
        answer = late.answer(asked)
        assert answer["chunks"] == [f"first of {number}", "last"]
        assert (answer["fate"], answer["value"]) == (Fate.COALESCED, number)
    until(lambda: not claims(path), "the end of all claims")


def test_one_that_comes_after_the_newcomer_was_told_of_nobody_still_waits_for_the_alone(
    here, path, monkeypatch, start
):
    """Who has entered and not yet asked is no reason to believe that all is written down."""
    leader = start()
    assert leader.do("join")["role"] == Role.LEAD
    host = HostFile(path)
    _, alone = Roster(host).enter(b"still to ask")
    assert alone is not None
    assert join(here).role is Role.FOLLOW
    leader.do("land", value=1)
    host.close()


def test_who_is_alone_and_stopped_holds_nobody_up_and_learns_of_the_others(
    here, path, start, monkeypatch
):
    monkeypatch.setattr("thinkonce.flights.sharing.ask_to_share", lambda to: ask_to_share(to, 0.05))
    stopped = start()
    stopped.do("join")
    os.kill(stopped.pid, signal.SIGSTOP)
    until(lambda: state_of(stopped.pid)[0] == b"T", "its stop")
    mine = join(here)
    assert mine.role is Role.LEAD
    os.kill(stopped.pid, signal.SIGCONT)
    assert stopped.do("join", seat="next", key="next")["role"] == Role.LEAD
    assert join(here, "next").role is Role.FOLLOW
    mine.land(1)
    stopped.do("land", value=1)
    stopped.do("land", seat="next", value=1)


def test_who_is_alone_learns_of_others_at_its_next_call_even_if_nobody_asked_it(here, path):
    first = join(here)
    accompany(path)
    second = join(here, "another")
    assert len(claims(path)) == 2
    first.abandon()
    second.abandon()
    assert claims(path) == []


def test_a_file_that_stays_locked_is_waited_for_once_and_not_for_each_call(here, path):
    seats = [join(here, f"{number:012}") for number in range(20)]
    other = HostFile(path)
    with other.lock:
        here.sharing._share_all()
    assert here.sharing.troubles <= 2, "one claim, and to say that one is alone no longer"
    assert claims(path) == []
    for seat in seats:
        seat.land(1)
    other.close()
    assert join(here).role is Role.LEAD


def test_a_killed_one_leaves_the_next_alone(here, start, path):
    killed = start()
    killed.do("join")
    killed.kill()
    mine = join(here)
    assert (mine.role, claims(path)) == (Role.LEAD, [])
    mine.abandon()


def test_when_the_others_have_gone_one_is_alone_again(path):
    clock, host, other = FakeClock(), HostFile(path), HostFile(path)
    here = Flights(host, codec=CODEC, clock=clock, lease=LONG, linger=0.01)
    elsewhere = Flights(other, codec=CODEC, clock=clock, lease=LONG)
    join(here).land(1)
    join(elsewhere, "another").land(1)
    shared = join(here, "shared")
    assert len(claims(path)) >= 1
    elsewhere.close()
    other.close()

    def is_alone():
        clock.advance(2)
        join(here, "looks around").land(1)
        return here.sharing._turn

    until(is_alone, "being alone again")
    mine = join(here)
    assert DIGEST not in claims(path)
    shared.land(1)
    mine.land(1)
    here.close()
    assert claims(path) == []
    host.close()


def test_circles_that_began_alone_are_seen_by_who_comes(here, path):
    """a waits for b here; a process that leads c, which b waits for, must not wait for a."""
    host = HostFile(path)
    a = contextvars.Context().run(join, here, "a")
    b = contextvars.Context().run(join, here, "b")
    waiting = a.flight.leader
    assert here.may_wait(waiting, b.flight, b.flight.leader)
    theirs = Flights(host, codec=CODEC, lease=LONG)
    c = contextvars.Context().run(join, theirs, "c")
    table = here.sharing.table
    assert table.may_wait([b.flight.claim], b"c".ljust(32, b"."), here.now())
    assert not table.may_wait([c.flight.claim], b"a".ljust(32, b"."), here.now())
    here.stop_waiting(waiting, b.flight.leader, b.flight)
    for seat in (c, b, a):
        seat.land(1)
    theirs.close()
    host.close()


def test_where_all_places_are_taken_nobody_is_alone(here, path):
    for _ in range(SLOTS):
        accompany(path)
    mine = join(here)
    assert claims(path) == [DIGEST]
    mine.abandon()


def test_a_member_of_another_id_space_is_gone_once_nobody_listens(path, monkeypatch):
    host = HostFile(path)
    roster = Roster(host)
    me = this_process()
    before = msgspec.structs.replace(me, space=me.space + 1)  # a container, since started anew
    monkeypatch.setattr("thinkonce.host.roster.this_process", lambda: before)
    roster.enter(os.fsencode(path.parent / "gone.sock"))
    monkeypatch.undo()
    mine, alone = roster.enter(b"mine")
    assert alone is None
    assert roster.is_alone(mine)
    host.close()


@pytest.mark.parametrize("rounds", [5, pytest.param(200, marks=pytest.mark.slow)])
def test_while_others_come_every_call_has_one_leader(start, path, rounds):
    """One makes calls alone as two more come, at the same time, for the same ones."""
    keys = [f"{number:012}" for number in range(40)]  # each in a bucket of its own
    for each in range(rounds):
        own = path.with_name(f"{each}.host")
        first, second, third = start(own), start(own), start(own)
        orders = [(first, keys), (second, keys[::-1]), (third, keys[20:] + keys[:20])]
        asked = [(worker, worker.tell("join_all", keys=order)) for worker, order in orders]
        roles = [worker.answer(number)["roles"] for worker, number in asked]
        leaders = Counter(key for one in roles for key, role in one.items() if role == Role.LEAD)
        assert leaders == dict.fromkeys(keys, 1)
        for worker, _ in orders:
            worker.kill()
