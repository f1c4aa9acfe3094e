"""Pairs are judged in time or not at all: shared, remembered, and harmless when it fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from thinkonce.circuit import FAILURES_IN_A_ROW, PAUSE_SECONDS
from thinkonce.meaning.verdict.verifier import Scales
from thinkonce.meaning.verifiers.verification import MOST_WAITING, REMEMBERED, Verification
from thinkonce.testing import FakeClock

LONG = 20.0


class Lengths:
    """The difference in length. Waits or fails when a test says so."""

    name, concurrency, patience = "lengths", 1, 0.0

    def __init__(self) -> None:
        self.scales: Scales = {}
        self.calls: list[tuple[str, str]] = []
        self.go, self.began = threading.Event(), threading.Event()
        self.go.set()
        self.fails = self.closed = False

    def logit(self, asked: str, stored: str) -> float | None:
        self.calls.append((asked, stored))
        self.began.set()
        self.go.wait()
        if self.fails:
            raise OSError("broken")
        if asked == "odd":
            return float(stored)
        return None if len(asked) > 20 else float(len(asked) - len(stored))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def lengths() -> Lengths:
    return Lengths()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def verification(lengths: Lengths, clock: FakeClock) -> Iterator[Verification]:
    made = Verification(lengths, timeout=LONG, clock=clock.clock)
    yield made
    lengths.go.set()
    made.close()


def test_a_pair_is_judged_once_and_then_remembered(
    verification: Verification, lengths: Lengths
) -> None:
    assert [verification.logit("hello", "you") for _ in range(3)] == [2.0] * 3
    assert lengths.calls == [("hello", "you")]
    assert verification.logit("you", "hello") == -2.0, "the order matters to a verifier"


def test_a_pair_too_long_is_none_and_no_failure(
    verification: Verification, lengths: Lengths
) -> None:
    for _ in range(FAILURES_IN_A_ROW + 1):
        assert verification.logit("x" * 30, "y") is None
    assert (len(lengths.calls), verification.failures) == (1, 0)
    assert verification.logit("a", "b") == 0.0


def test_what_is_no_number_is_no_judgement(verification: Verification) -> None:
    for text in ("nan", "inf", "-inf"):
        assert verification.logit("odd", text) is None
    assert verification.failures == 3
    assert verification.logit("odd", "2.5") == 2.5


def test_askers_at_once_share_the_judging(verification: Verification, lengths: Lengths) -> None:
    lengths.go.clear()
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(verification.logit, "one", "two") for _ in range(8)]
        assert lengths.began.wait(LONG)
        lengths.go.set()
        assert [each.result(LONG) for each in asked] == [0.0] * 8
    assert len(lengths.calls) == 1


def test_who_cannot_wait_goes_without_and_the_next_finds_it(
    verification: Verification, lengths: Lengths
) -> None:
    lengths.go.clear()
    assert verification.logit("hello", "you", timeout=0.0) is None
    assert verification.late == 1
    lengths.go.set()
    assert verification.logit("hello", "you") == 2.0
    assert len(lengths.calls) == 1


def test_pairs_that_nobody_waits_for_any_more_are_not_judged(
    verification: Verification, lengths: Lengths, clock: FakeClock
) -> None:
    lengths.go.clear()
    assert verification.logit("one", "x", timeout=0.0) is None
    assert lengths.began.wait(LONG)
    assert verification.logit("two", "x", timeout=0.0) is None
    clock.advance(LONG + 1)
    lengths.go.set()
    assert verification.logit("three", "x") == 4.0
    assert [asked for asked, _ in lengths.calls] == ["one", "three"]


def test_a_full_queue_refuses_at_once(verification: Verification, lengths: Lengths) -> None:
    lengths.go.clear()
    assert verification.logit("first", "x", timeout=0.0) is None
    assert lengths.began.wait(LONG)
    for number in range(MOST_WAITING):
        assert verification.logit(str(number), "x", timeout=0.0) is None
    assert verification.refused == 0
    assert verification.logit("one more", "x") is None
    assert verification.refused == 1


def test_a_verifier_that_keeps_failing_is_left_alone_and_tried_again(
    verification: Verification, lengths: Lengths, clock: FakeClock
) -> None:
    lengths.fails = True
    for number in range(FAILURES_IN_A_ROW + 3):
        assert verification.logit(str(number), "x") is None
    assert len(lengths.calls) == FAILURES_IN_A_ROW
    assert (verification.failures, verification.refused) == (FAILURES_IN_A_ROW, 3)
    lengths.fails = False
    clock.advance(PAUSE_SECONDS)
    assert verification.logit("again", "x") == 4.0


def test_the_verifier_says_how_long_it_is_worth_waiting_for(lengths: Lengths) -> None:
    lengths.go.clear()
    verification = Verification(lengths)
    assert verification.logit("hello", "you") is None, "no patience at all"
    assert verification.late == 1
    lengths.go.set()
    verification.close()


def test_what_is_remembered_is_bounded(verification: Verification, lengths: Lengths) -> None:
    for number in range(REMEMBERED + 10):
        verification.logit(str(number), "x")
    assert len(verification._known) == REMEMBERED
    verification.logit("0", "x")
    assert len(lengths.calls) == REMEMBERED + 11, "the oldest were forgotten"


def test_closing_ends_the_thread_and_lets_go_of_who_waits(
    verification: Verification, lengths: Lengths
) -> None:
    lengths.go.clear()
    with ThreadPoolExecutor(2) as pool:
        pool.submit(verification.logit, "one", "x")
        assert lengths.began.wait(LONG)
        waiting = pool.submit(verification.logit, "two", "x")
        while not verification._queue:
            pass
        closing = threading.Thread(target=verification.close)
        closing.start()
        assert waiting.result(LONG) is None
        lengths.go.set()
        closing.join(LONG)
    assert lengths.closed
    assert verification.logit("three", "x") is None


def test_any_text_may_be_asked_about(verification: Verification) -> None:
    for text in ("", "\0", "\ud800", "🙂"):
        assert verification.logit(text, text) == 0.0
