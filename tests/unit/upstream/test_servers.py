"""Who of a pool is asked: shares, circuits, rests, places, and what retries may cost."""

from __future__ import annotations

import asyncio
from collections import Counter
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkonce.settings import Upstream
from thinkonce.upstream.budget import RESERVE, Budget
from thinkonce.upstream.checks import Checks
from thinkonce.upstream.failure import Overloaded
from thinkonce.upstream.line import Line
from thinkonce.upstream.pools import Pool, Pools
from thinkonce.upstream.server import MAX_REST, Server, base_url, retry_after


def server(most: float = inf, failures: int = 3, pause: float = 5.0) -> Server:
    return Server(base_url("http://h"), most=most, failures=failures, pause=pause)


# -- circuits and rests ---------------------------------------------------------------------


def test_failures_in_a_row_open_the_circuit_and_one_success_forgets_them() -> None:
    one = server()
    one.failed(0)
    one.failed(0)
    one.succeeded()
    one.failed(0)
    one.failed(0)
    assert one.is_ready(0), "two in a row, not three"
    one.failed(0)
    assert not one.is_ready(4.9)
    assert one.is_ready(5.0)


def test_when_half_open_one_request_a_pause_goes_through() -> None:
    one = server()
    for _ in range(3):
        one.failed(0)
    one.asked(5)
    assert not one.is_ready(5), "the probe is under way"
    one.failed(6)
    assert not one.is_ready(10.9)
    assert one.is_ready(11), "the pause begins anew with the probe's failure"
    one.asked(11)
    one.succeeded()
    assert one.is_ready(11)
    one.asked(11)
    assert one.is_ready(11), "closed: asking changes nothing"


def test_a_rest_lasts_as_long_as_was_asked_for_within_bounds() -> None:
    one = server()
    one.rest(9, now=0)
    assert not one.is_ready(8.9)
    one.succeeded()
    assert not one.is_ready(8.9), "an older answer does not end a rest"
    assert one.is_ready(9)
    one.rest(1e9, now=10)
    assert one.is_ready(10 + MAX_REST)


def test_a_failed_health_check_takes_a_server_out_until_one_succeeds() -> None:
    one = server()
    one.checked(False)
    assert not one.is_ready(1e9)
    one.checked(True)
    assert one.is_ready(0)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"9", 9.0),
        (b"0", 0.0),
        (b"Tue, 14 Nov 2023 22:13:50 GMT", 30.0),
        (b"Tue, 14 Nov 2000 22:13:50 GMT", 0.0),
        (b"soon", None),
        (b"-3", None),
        ("²".encode("latin-1"), None),
        (b"9" * 400, 999_999_999.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: bytes, seconds: float | None) -> None:
    assert retry_after([(b"x", b"1"), (b"retry-after", value)], 1_700_000_000.0) == seconds


def test_a_servers_name_holds_no_credential() -> None:
    assert repr(Server(base_url("http://user:secret@h:81/v1?key=secret"))) == "Server(h:81)"


# -- turns ----------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 9), min_size=2, max_size=5))
def test_each_server_comes_first_in_its_share(weights: list[int]) -> None:
    urls = [f"http://h{number}" for number in range(len(weights))]
    pool = Pool("p", Upstream(urls=urls, weights=[float(weight) for weight in weights]))
    firsts = Counter(pool.in_turn()[0].name for _ in range(3 * sum(weights)))
    assert firsts == {f"h{number}": 3 * weight for number, weight in enumerate(weights)}


def test_every_server_has_its_place_in_every_turn() -> None:
    pool = Pool("p", Upstream(urls=["http://a", "http://b", "http://c"]))
    turns = ["".join(server.name for server in pool.in_turn()) for _ in range(4)]
    assert turns == ["abc", "bca", "cab", "abc"]
    ordered = Pool("p", Upstream(urls=["http://a", "http://b"], choice="ordered"))
    assert ["".join(s.name for s in ordered.in_turn()) for _ in range(2)] == ["ab", "ab"]


def test_a_model_named_exactly_comes_before_a_pattern_whatever_the_order() -> None:
    pools = Pools.of(
        {
            "wide": Upstream(urls=["http://a"], models=["gpt-*"]),
            "exact": Upstream(urls=["http://b"], models=["gpt-9"]),
            "wider": Upstream(urls=["http://c"], models=["g*", "gpt-9"]),
        }
    )
    chosen = [pools.for_model(model) for model in ("gpt-9", "gpt-8", "gem", "claude", "")]
    assert [pool and pool.name for pool in chosen] == ["exact", "wide", "wider", None, "wide"]


def test_a_pool_declared_as_before_goes_on_as_it_is() -> None:
    rows = {"a": Upstream(urls=["http://a"]), "b": Upstream(urls=["http://b"])}
    former = Pools.of(rows)
    pools = Pools.of({**rows, "b": Upstream(urls=["http://b"], retry_budget=0.5)}).keeping(former)
    assert pools.all[0] is former.all[0]
    assert pools.all[1] is not former.all[1]


# -- budgets --------------------------------------------------------------------------------


def test_retries_cannot_storm() -> None:
    budget = Budget(0.1)
    made = 0
    for _ in range(1000):
        budget.earn()
        made += sum(budget.spend() for _ in range(3))
    assert made <= 1000 * 0.1 + RESERVE
    assert made >= 1000 * 0.1 - 1, "and it is a share, not nothing"


def test_a_budget_of_nothing_has_no_reserve() -> None:
    budget = Budget(0.0)
    budget.earn()
    assert not budget.spend()


# -- places ---------------------------------------------------------------------------------


async def test_places_are_handed_on_in_the_order_of_coming() -> None:
    one, line = server(most=1), Line("p", 9)
    assert line.take([one]) is one
    assert line.take([one]) is None
    waiting = [asyncio.ensure_future(line.wait([one], 10)) for _ in range(3)]
    await asyncio.sleep(0)
    for first, *_ in (waiting, waiting[1:], waiting[2:]):
        line.give_back(one)
        assert await first is one
        assert line.take([one]) is None, "nobody overtakes the line"
    line.give_back(one)
    assert (one.busy, len(line)) == (0, 0)


async def test_who_leaves_the_line_leaves_no_place_taken() -> None:
    one, line = server(most=1), Line("p", 9)
    line.take([one])
    early, late = (asyncio.ensure_future(line.wait([one], 10)) for _ in range(2))
    await asyncio.sleep(0)
    line.give_back(one)
    late.cancel()
    early.cancel()  # in the moment in which it was given the place
    await asyncio.gather(early, late, return_exceptions=True)
    assert (one.busy, len(line)) == (0, 0)


async def test_a_line_has_an_end_and_a_wait_too() -> None:
    one, line = server(most=1), Line("p", 1)
    line.take([one])
    with pytest.raises(Overloaded, match="no place came free"):
        await line.wait([one], 0.001)
    waiting = asyncio.ensure_future(line.wait([one], 10))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="1 requests wait already"):
        await line.wait([one], 10)
    line.give_back(one)
    await waiting
    line.give_back(one)
    assert one.busy == 0


async def test_a_place_goes_to_who_waits_for_that_server() -> None:
    one, other, line = server(most=1), server(most=1), Line("p", 9)
    line.take([one])
    line.take([other])
    for_one = asyncio.ensure_future(line.wait([one], 10))
    for_any = asyncio.ensure_future(line.wait([one, other], 10))
    await asyncio.sleep(0)
    line.give_back(other)
    assert await for_any is other
    line.give_back(one)
    assert await for_one is one


# -- health checks --------------------------------------------------------------------------


async def test_checks_go_on_at_their_interval_and_end_with_their_pool() -> None:
    asked: asyncio.Queue[str] = asyncio.Queue()
    pauses: asyncio.Queue[float] = asyncio.Queue()
    turn = asyncio.Event()

    async def ask(pool: Pool, server: Server) -> bool:
        asked.put_nowait(server.name)
        return asked.qsize() > 1

    async def pause(seconds: float) -> None:
        pauses.put_nowait(seconds)
        await turn.wait()
        turn.clear()

    checks = Checks(ask, pause)
    checked = Pool("p", Upstream(urls=["http://a"], health_path="/health", health_interval=7))
    plain = Pool("q", Upstream(urls=["http://b"]))
    checks.watch([checked, plain])
    assert await pauses.get() == 7
    assert checked.servers[0].down
    turn.set()
    await pauses.get()
    assert not checked.servers[0].down
    assert [asked.get_nowait() for _ in range(asked.qsize())] == ["a", "a"], "the plain one never"
    checks.watch([plain])
    assert len(checks) == 0
    await checks.close()
