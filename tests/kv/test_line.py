"""The line before the model: how long it may get, who is served when, and who leaves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from openai import OpenAI, RateLimitError
from small_model import Serve, Served, client_of

from thinkonce.clock import Clock
from thinkonce.kv.serving.line.scheduler import Scheduler
from thinkonce.kv.serving.line.ticket import Busy, Job, Turn

PATIENCE = 30.0


def ask(client: OpenAI, content: str, **fields: Any) -> Any:
    return client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": content}], temperature=0, **fields
    )


def in_background(function: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=function)
    thread.start()
    return thread


def wait(served: Served, holds: Callable[[Scheduler], bool]) -> None:
    assert served.scheduler.wait_until(holds, PATIENCE), "the line never came to that"


def test_beyond_the_bound_the_answer_is_429_and_says_when_to_come_back(serve: Serve) -> None:
    served = serve(max_waiting=2)
    served.generator.gate.clear()
    with client_of(served) as client:
        threads = []
        for place in range(3):
            threads.append(in_background(lambda n=place: ask(client, f"{n}", max_tokens=2)))
            wait(served, lambda line, n=place: line.running and line.waiting == n)
        with pytest.raises(RateLimitError) as caught:
            ask(client, "one too many", max_tokens=2)
        served.generator.gate.set()
        for thread in threads:
            thread.join()
    assert int(caught.value.response.headers["retry-after"]) >= 1
    assert caught.value.code == "server_busy"
    assert len(served.generator.begun) == 3, "the refused request cost no model time"


def test_requests_are_served_in_the_order_they_came(serve: Serve, client: OpenAI) -> None:
    served = serve(max_waiting=4)
    served.generator.gate.clear()
    with client_of(served) as client:
        threads = []
        for place in range(5):
            threads.append(in_background(lambda n=place: ask(client, "x" * (n + 1), max_tokens=1)))
            wait(served, lambda line, n=place: line.running and line.waiting == n)
        served.generator.gate.set()
        for thread in threads:
            thread.join()
    lengths = [len(prompt) for prompt in served.generator.begun]
    assert lengths == sorted(lengths)


def test_a_client_that_leaves_a_stream_frees_the_worker(served: Served, client: OpenAI) -> None:
    stream = ask(client, "Tell me everything.", max_tokens=1900, stream=True)
    for _ in range(3):
        next(stream)
    stream.close()
    wait(served, lambda line: not line.running)
    assert served.generator.made < 1900, "the rest of the answer was not made"
    assert ask(client, "And now?", max_tokens=2).usage.completion_tokens == 2


def test_a_client_that_leaves_the_line_is_never_served(serve: Serve) -> None:
    served = serve()
    served.generator.gate.clear()
    with client_of(served) as patient, client_of(served) as hasty:
        first = in_background(lambda: ask(patient, "first", max_tokens=1))
        wait(served, lambda line: line.running)

        def leave() -> None:
            with pytest.raises(Exception, match="timed out"):
                ask(hasty.with_options(timeout=0.2), "second", max_tokens=1)

        second = in_background(leave)
        wait(served, lambda line: line.waiting == 1)
        wait(served, lambda line: line.waiting == 0)
        served.generator.gate.set()
        first.join()
        second.join()
        wait(served, lambda line: not line.running)
    assert len(served.generator.begun) == 1


def test_a_second_stop_gives_up_what_is_running(serve: Serve) -> None:
    served = serve()
    served.generator.gate.clear()
    answers: list[str] = []

    def follow() -> None:
        with client_of(served) as client:
            try:
                answers.extend(str(chunk) for chunk in ask(client, "a", stream=True, max_tokens=9))
            except Exception as error:  # whichever way the connection ends
                answers.append(type(error).__name__)

    thread = in_background(follow)
    wait(served, lambda line: line.running)
    served.server.stop()
    served.server.stop()
    served.generator.gate.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert served.generator.made <= 2


class Steps:
    """Jobs that a test lets go on one by one, and what became of them."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.go = threading.Event()

    def job(self, name: str, turns: int = 1) -> tuple[Job, Callable[[Exception], None]]:
        def run(cancelled: Callable[[], bool]) -> Iterator[Turn]:
            assert self.go.wait(PATIENCE)
            for _ in range(turns):
                yield Turn(made=1)
            self.done.append(name)

        return run, lambda why: self.done.append(f"{name} dropped")


def test_closing_finishes_what_waits_and_accepts_nothing_more() -> None:
    steps, line = Steps(), Scheduler(max_waiting=5)
    for name in "abc":
        line.submit(*steps.job(name))
    closing = in_background(line.close)
    steps.go.set()
    closing.join()
    assert steps.done == ["a", "b", "c"]
    assert not line.alive
    with pytest.raises(Busy, match="shutting down"):
        line.submit(*steps.job("late"))


def test_cancelling_drops_what_waits_and_tells_what_runs() -> None:
    steps, line = Steps(), Scheduler(max_waiting=5)
    tickets = [line.submit(*steps.job(name)) for name in "abc"]
    assert line.wait_until(lambda line: line.running, PATIENCE)
    tickets[1].cancel()
    tickets[1].cancel()
    assert steps.done == ["b dropped"], "cancelling twice drops once"
    tickets[0].cancel()
    steps.go.set()
    line.close()
    assert steps.done == ["b dropped", "a dropped", "c"]


def test_the_bound_holds_before_the_worker_has_taken_the_first_job() -> None:
    steps, line = Steps(), Scheduler(max_waiting=2)
    for name in "abc":
        line.submit(*steps.job(name))
    with pytest.raises(Busy):
        line.submit(*steps.job("d"))
    steps.go.set()
    line.close()
    assert steps.done == ["a", "b", "c"]


def test_a_job_that_fails_does_not_end_the_worker(caplog: pytest.LogCaptureFixture) -> None:
    steps, line = Steps(), Scheduler(max_waiting=2)
    steps.go.set()

    def fail(cancelled: Callable[[], bool]) -> Iterator[Turn]:
        yield Turn(read=1)
        raise ZeroDivisionError

    line.submit(fail, lambda why: None)
    line.submit(*steps.job("next"))
    line.close()
    assert steps.done == ["next"]
    assert "a job failed" in caplog.text


def test_retry_after_grows_with_the_line_and_with_what_answers_take() -> None:
    now = 0.0

    def ten_seconds(cancelled: Callable[[], bool]) -> Iterator[Turn]:
        nonlocal now
        now += 10.0
        yield Turn(made=1)

    line = Scheduler(max_waiting=1, clock=Clock(wall=lambda: now, monotonic=lambda: now))
    for _ in range(20):
        line.submit(ten_seconds, lambda why: None)
        assert line.wait_until(lambda line: not line.running and not line.waiting, PATIENCE)
    steps = Steps()
    line.submit(*steps.job("running"))
    line.submit(*steps.job("waiting"))
    with pytest.raises(Busy) as caught:
        line.submit(*steps.job("refused"))
    steps.go.set()
    line.close()
    assert 15 <= caught.value.retry_after <= 21, "two answers of ten seconds stand before it"
