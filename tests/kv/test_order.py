"""Who is next: shared prefixes, tenants, age, places, and what becomes of those that wait."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from thinkonce.clock import Clock
from thinkonce.errors import ThinkOnceError
from thinkonce.kv.serving.line.line import Demand
from thinkonce.kv.serving.line.scheduler import Scheduler
from thinkonce.kv.serving.line.shares import MADE_WORK, Shares
from thinkonce.kv.serving.line.ticket import Busy, Job, Late, Turn, WorkerDied

PATIENCE = 30.0


@dataclass
class Bench:
    """A real scheduler whose worker a test holds until the line is as it wants it."""

    sequences: int = 1
    max_waiting: int = 100
    max_tokens: int = 10_000
    deadline: float = 0.0
    now: float = 0.0
    turns: list[str] = field(default_factory=list)
    dropped: dict[str, ThinkOnceError] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.go = threading.Event()
        self.line = Scheduler(
            self.max_waiting,
            Clock(wall=lambda: self.now, monotonic=lambda: self.now),
            sequences=self.sequences,
            max_tokens=self.max_tokens,
            deadline=self.deadline,
            patience=PATIENCE,
        )

    def hold(self) -> None:
        """Keep the worker busy, on behalf of nobody else."""

        def wait(cancelled: Callable[[], bool]) -> Iterator[Turn]:
            assert self.go.wait(PATIENCE)
            yield Turn()

        self.line.submit(wait, lambda why: None, Demand("holder"))
        assert self.line.wait_until(lambda line: line.running == 1, PATIENCE)

    def add(
        self,
        name: str,
        tenant: str = "",
        *,
        read: int = 0,
        made: int = 1,
        tokens: int = 1,
        known: Callable[[], int] = lambda: 0,
        seconds: float = 0.0,
    ) -> None:
        def run(cancelled: Callable[[], bool]) -> Iterator[Turn]:
            for _ in range(read):
                self.turns.append(name)
                yield Turn(read=100)
            for _ in range(made):
                self.turns.append(name)
                self.now += seconds
                yield Turn(made=1)

        self.line.submit(
            run, lambda why: self.dropped.update({name: why}), Demand(tenant, tokens, known)
        )

    def done(self) -> list[str]:
        self.go.set()
        self.line.close()
        return self.turns


def test_requests_that_share_a_prefix_follow_the_one_that_computes_it() -> None:
    bench = Bench()
    bench.hold()

    def known() -> int:
        return 100 * ("first of A" in bench.turns)

    bench.add("first of A")
    bench.add("B")
    bench.add("C")
    bench.add("second of A", known=known)
    bench.add("third of A", known=lambda: 2 * known())
    assert bench.done() == ["first of A", "third of A", "second of A", "B", "C"]


def test_whoever_waited_as_long_as_the_age_limit_comes_before_longer_matches() -> None:
    bench = Bench()
    bench.hold()
    bench.add("cold")
    for number in range(6):
        bench.add(f"warm {number}", known=lambda: 100, seconds=PATIENCE / 3)
    assert bench.done() == [
        *("warm 0", "warm 1", "warm 2", "cold"),
        *("warm 3", "warm 4", "warm 5"),
    ]


def test_a_tenant_with_many_requests_does_not_hold_up_one_with_few() -> None:
    bench = Bench()
    bench.hold()
    for number in range(5):
        bench.add(f"many {number}", "many", known=lambda: 1000)
    bench.add("few 0", "few")
    bench.add("few 1", "few")
    assert bench.done() == ["many 0", "few 0", "many 1", "few 1", "many 2", "many 3", "many 4"]


def test_shares_are_counted_in_work_and_not_in_requests() -> None:
    bench = Bench()
    bench.hold()
    for number in range(3):
        bench.add(f"long {number}", "long", made=30)
        bench.add(f"short {number}", "short", made=10)
    done = list(dict.fromkeys(bench.done()))
    assert done == ["long 0", "short 0", "short 1", "short 2", "long 1", "long 2"]


def test_a_tenant_that_comes_back_has_saved_up_no_turns() -> None:
    shares = Shares()
    shares.arrive("busy")
    for _ in range(10):
        shares.least(["busy"])
        shares.charge("busy", read=1000, made=0)
    shares.forget(["busy"])
    shares.arrive("back")
    shares.least(["back", "busy"])
    shares.charge("back", read=1001, made=0)
    assert shares.least(["back", "busy"]) == "busy"
    shares.charge("busy", read=0, made=MADE_WORK)
    shares.forget([])
    assert shares._work == {}, "nothing is remembered once all are served"


def test_tenants_that_are_gone_are_remembered_within_a_bound() -> None:
    shares = Shares()
    shares.arrive("here")
    for number in range(3000):
        shares.arrive(f"once {number}")
        shares.charge(f"once {number}", read=1, made=0)
        shares.forget(["here"])
    assert len(shares._work) <= 1024


def test_answers_take_turns_and_one_prompt_is_read_at_a_time() -> None:
    bench = Bench(sequences=3)
    bench.hold()
    bench.add("a", "a", read=2, made=3)
    bench.add("b", "b", read=2, made=2)
    turns = bench.done()
    assert turns[:2] == ["a", "a"]
    assert turns.index("b") > 2, "b is not read while a is"
    assert turns[2:] == ["a", "b", "a", "b", "a", "b", "b"]


def test_a_short_answer_behind_a_long_one_is_done_first() -> None:
    bench = Bench(sequences=3)
    bench.hold()
    bench.add("long", made=50)
    bench.add("short", read=1, made=2)
    turns = bench.done()
    assert turns.index("short") < 4
    assert max(place for place, name in enumerate(turns) if name == "short") < 9


def test_one_tenant_alone_leaves_the_last_place_free() -> None:
    bench = Bench(sequences=2)
    bench.hold()
    for name in ("one", "two"):
        bench.add(name, "greedy", made=4)
    assert bench.done() == ["one"] * 4 + ["two"] * 4
    bench = Bench(sequences=2)
    bench.hold()
    bench.add("one", "greedy", made=4)
    bench.add("two", "greedy", made=4)
    bench.add("other", "other", made=2)
    assert bench.done()[:4] == ["one", "other", "one", "other"]


def test_a_client_that_fills_the_line_does_not_shut_out_the_others() -> None:
    bench = Bench(max_waiting=3)
    bench.hold()
    for number in range(3):
        bench.add(f"many {number}", "many")
    bench.add("few", "few")
    assert isinstance(bench.dropped["many 2"], Busy)
    with pytest.raises(Busy, match="3 requests are waiting"):
        bench.add("few 1", "few")
    assert bench.done() == ["many 0", "few", "many 1"]


def test_prompts_that_wait_are_bounded_in_tokens_and_an_empty_line_takes_any() -> None:
    bench = Bench(max_tokens=100)
    bench.hold()
    bench.add("huge", tokens=5000)
    with pytest.raises(Busy, match="prompts of 5000 tokens are waiting; 100 may, and this has 1"):
        bench.add("small")
    assert bench.done() == ["huge"]


def test_a_request_that_is_late_is_given_up_while_it_waits_and_while_it_runs() -> None:
    bench = Bench(deadline=10)
    bench.hold()
    bench.add("runs", made=9, seconds=4)
    bench.add("waits")
    assert bench.done() == ["runs"] * 3
    assert {name: type(why) for name, why in bench.dropped.items()} == {
        "runs": Late,
        "waits": Late,
    }
    assert bench.line.stats()["late"] == 2


def test_stats_tell_position_and_wait_of_those_in_line() -> None:
    bench = Bench()
    bench.hold()
    bench.add("a", "secret tenant", tokens=40, known=lambda: 30)
    bench.now = 2.0
    bench.add("b", tokens=7)
    told = bench.line.stats()
    assert told["waiting"] == [
        {"position": 1, "seconds": 2.0, "tokens": 40, "known_tokens": 30},
        {"position": 2, "seconds": 0.0, "tokens": 7, "known_tokens": 0},
    ]
    assert (told["under_way"], told["waiting_tokens"]) == (1, 47)
    assert "secret" not in str(told)
    bench.done()
    assert bench.line.stats()["longest_wait_seconds"] == 2.0


@pytest.mark.filterwarnings("error")
def test_a_worker_that_dies_leaves_nobody_waiting(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.hold()

    def die(cancelled: Callable[[], bool]) -> Iterator[Turn]:
        raise SystemExit("torch gave up")
        yield Turn()

    jobs: list[tuple[str, Job]] = [("dies", die)]
    for name, job in jobs:
        bench.line.submit(job, lambda why, name=name: bench.dropped.update({name: why}))  # type: ignore[misc]
    bench.add("waits", "other")
    bench.go.set()
    assert bench.line.wait_until(lambda line: line.died, PATIENCE)
    bench.line._thread.join(PATIENCE)
    assert {type(why) for why in bench.dropped.values()} == {WorkerDied}
    assert "dies" in bench.dropped
    with pytest.raises(WorkerDied):
        bench.add("late")
    assert not bench.line.alive
    assert "has died" in caplog.text
