"""Carries one answer from the worker's thread to its client, who may leave at any moment."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

from thinkonce.errors import ThinkOnceError
from thinkonce.kv.generation.generator import TooLong
from thinkonce.kv.serving.answers.answer import Event, Spent
from thinkonce.kv.serving.answers.messages_reply import MessagesDialect
from thinkonce.kv.serving.answers.reply import Dialect
from thinkonce.kv.serving.http import Reply
from thinkonce.kv.serving.line.line import Demand
from thinkonce.kv.serving.line.scheduler import Scheduler
from thinkonce.kv.serving.line.ticket import Busy, Late, Stopped, Turn, WorkerDied
from thinkonce.web.exchange import HttpError, Receive

__all__ = ("Failed", "Produce", "deliver", "error_of", "events_of")

_logger = logging.getLogger("thinkonce.kv")

Produce = Callable[[Callable[[], bool]], Iterator[Event | Turn]]
"""Makes an answer's events, turn by turn; it is given a function that says whether to stop."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The work broke off."""

    error: Exception


@dataclass(frozen=True, slots=True)
class _Over:
    """Nothing follows: the work is done, was dropped, or its client has left."""


T = TypeVar("T")


async def deliver(
    produce: Produce,
    scheduler: Scheduler,
    dialect: Dialect | MessagesDialect,
    receive: Receive,
    reply: Reply,
    *,
    demand: Demand,
    stream: bool,
    is_ahead: bool = False,
) -> None:
    """Run `produce` in the line and send what it makes, as a stream or in one piece.

    A client that leaves takes its work out of the line, or stops it before the next step. Raises
    HttpError where the line is full (429 with Retry-After), or the work fails or is dropped
    before anything was sent; later failures become an error event. What a client is slow to take
    waits here, at most one answer: its place at the model is freed when the answer is made.
    """
    events: AsyncGenerator[Event | Failed, None] = events_of(
        produce, scheduler, receive, demand, is_ahead=is_ahead
    )
    async with aclosing(events) as messages:
        if stream:
            await _stream(messages, dialect, reply)
        else:
            await _whole(messages, dialect, reply)


async def events_of(
    produce: Callable[[Callable[[], bool]], Iterator[T | Turn]],
    scheduler: Scheduler,
    receive: Receive,
    demand: Demand,
    *,
    is_ahead: bool = False,
) -> AsyncGenerator[T | Failed, None]:
    """The events as they are made. Closing this iterator cancels the work; so does a client that
    leaves, and then they end early. Raises HttpError where the line is full.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[T | Failed | _Over] = asyncio.Queue()

    def post(message: T | Failed | _Over) -> None:
        # Once the loop is closed there is no client left to tell.
        if not loop.is_closed():
            loop.call_soon_threadsafe(queue.put_nowait, message)

    def run(cancelled: Callable[[], bool]) -> Iterator[Turn]:
        try:
            for event in produce(cancelled):
                if isinstance(event, Turn):
                    yield event
                else:
                    post(event)
        except TooLong as error:
            post(Failed(error))
        except Exception as error:
            _logger.exception("generation failed")
            post(Failed(error))
        post(_Over())

    def dropped(why: ThinkOnceError) -> None:
        post(Failed(why))
        post(_Over())

    try:
        ticket = scheduler.submit(run, dropped, demand, is_ahead=is_ahead)
    except (Busy, WorkerDied) as refused:
        raise error_of(refused) from refused
    watcher = asyncio.create_task(_watch(receive, queue))
    try:
        while not isinstance(message := await queue.get(), _Over):
            yield message
    finally:
        ticket.cancel()
        watcher.cancel()


async def _watch(receive: Receive, queue: asyncio.Queue[T | Failed | _Over]) -> None:
    """Ends the queue once the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
    queue.put_nowait(_Over())


async def _whole(
    messages: AsyncIterator[Event | Failed], dialect: Dialect | MessagesDialect, reply: Reply
) -> None:
    events: list[Event] = []
    async for message in messages:
        if isinstance(message, Failed):
            raise error_of(message.error)
        events.append(message)
    if not _complete(events):
        raise _dropped()
    await reply.json(dialect.whole(events))


async def _stream(
    messages: AsyncIterator[Event | Failed], dialect: Dialect | MessagesDialect, reply: Reply
) -> None:
    """The stream opens with the first event, so that what fails before has a status."""
    wrong: HttpError | None = _dropped()
    async for message in messages:
        if isinstance(message, Failed):
            wrong = error_of(message.error)
            break
        if not reply.started:
            await reply.open_stream()
        for chunk in dialect.chunks(message):
            await reply.event(dialect.frame(chunk))
        if isinstance(message, Spent):
            wrong = None
    if wrong is not None and not reply.started:
        raise wrong
    last = dialect.ending if wrong is None else dialect.failed(wrong)
    if last is not None:
        await reply.event(dialect.frame(last))
    await reply.close_stream()


def _complete(events: list[Event]) -> bool:
    return bool(events) and isinstance(events[-1], Spent)


def error_of(error: Exception) -> HttpError:
    """In the protocol's shape. Of a failure only its kind: the rest may hold text of the prompt."""
    match error:
        case Busy():
            wait = ((b"retry-after", b"%d" % error.retry_after),)
            status = 503 if error.closed else 429
            return HttpError(status, str(error), code="server_busy", headers=wait)
        case Late():
            return HttpError(504, f"{error} ([local] deadline)", code="deadline_exceeded")
        case TooLong():
            return HttpError(400, str(error), code="context_length_exceeded")
        case WorkerDied():
            return HttpError(503, str(error), code="model_failed")
        case Stopped():
            return _dropped()
    if _is_memory(error):
        message = "the machine has not enough memory for this request now; ask for less, or later"
        return HttpError(503, message, code="out_of_memory", headers=((b"retry-after", b"5"),))
    return HttpError(500, f"generation failed ({type(error).__name__})", code="failed")


def _is_memory(error: Exception) -> bool:
    """Python and torch say it in three ways; torch is not loaded for this."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "not enough memory" in str(error)


def _dropped() -> HttpError:
    return HttpError(503, "the answer was given up: the server is shutting down", code="dropped")
