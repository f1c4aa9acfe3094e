"""Carries one answer from the worker's thread to its client, who may leave at any moment."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass

from thinkonce.kv.serving.answer import Event, Spent
from thinkonce.kv.serving.http import Reply
from thinkonce.kv.serving.reply import Dialect
from thinkonce.kv.serving.scheduler import Busy, Scheduler
from thinkonce.web.exchange import HttpError, Receive, error_body

__all__ = ("Produce", "deliver")

_logger = logging.getLogger("thinkonce.kv")

Produce = Callable[[Callable[[], bool]], Iterator[Event]]
"""Makes an answer's events; it is given a function that says whether it should stop."""


@dataclass(frozen=True, slots=True)
class _Failed:
    error: Exception


@dataclass(frozen=True, slots=True)
class _Over:
    """Nothing follows: the work is done, was dropped, or its client has left."""


_Message = Event | _Failed | _Over


async def deliver(
    produce: Produce,
    scheduler: Scheduler,
    dialect: Dialect,
    receive: Receive,
    reply: Reply,
    *,
    stream: bool,
) -> None:
    """Run `produce` in the line and send what it makes, as a stream or in one piece.

    A client that leaves takes its work out of the line, or stops it at the next token. Raises
    HttpError where the line is full (429 with Retry-After), or the work fails or is dropped
    before anything was sent; later failures become an error event.
    """
    async with aclosing(_messages(produce, scheduler, receive)) as messages:
        if stream:
            await _stream(messages, dialect, reply)
        else:
            await _whole(messages, dialect, reply)


async def _messages(
    produce: Produce, scheduler: Scheduler, receive: Receive
) -> AsyncGenerator[Event | _Failed, None]:
    """The events as they are made. Closing this iterator cancels the work."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[_Message] = asyncio.Queue()

    def post(message: _Message) -> None:
        # Once the loop is closed there is no client left to tell.
        if not loop.is_closed():
            loop.call_soon_threadsafe(queue.put_nowait, message)

    def run(cancelled: Callable[[], bool]) -> None:
        try:
            for event in produce(cancelled):
                post(event)
        except Exception as error:
            _logger.exception("generation failed")
            post(_Failed(error))
        post(_Over())

    try:
        ticket = scheduler.submit(run, lambda: post(_Over()))
    except Busy as busy:
        raise _refusal(busy, scheduler) from busy
    watcher = asyncio.create_task(_watch(receive, queue))
    try:
        while not isinstance(message := await queue.get(), _Over):
            yield message
    finally:
        ticket.cancel()
        watcher.cancel()


async def _watch(receive: Receive, queue: asyncio.Queue[_Message]) -> None:
    """Ends the queue once the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
    queue.put_nowait(_Over())


async def _whole(messages: AsyncIterator[Event | _Failed], dialect: Dialect, reply: Reply) -> None:
    events: list[Event] = []
    async for message in messages:
        if isinstance(message, _Failed):
            raise _failure(message)
        events.append(message)
    if not _complete(events):
        raise _dropped()
    await reply.json(dialect.whole(events))


async def _stream(messages: AsyncIterator[Event | _Failed], dialect: Dialect, reply: Reply) -> None:
    """The stream opens with the first event, so that what fails before has a status."""
    wrong: HttpError | None = _dropped()
    async for message in messages:
        if isinstance(message, _Failed):
            wrong = _failure(message)
            break
        if not reply.started:
            await reply.open_stream()
        for chunk in dialect.chunks(message):
            await reply.event(chunk)
        if isinstance(message, Spent):
            wrong = None
    if wrong is not None and not reply.started:
        raise wrong
    await reply.event(b"[DONE]" if wrong is None else error_body(wrong))
    await reply.close_stream()


def _complete(events: list[Event]) -> bool:
    return bool(events) and isinstance(events[-1], Spent)


def _refusal(busy: Busy, scheduler: Scheduler) -> HttpError:
    status = 429 if scheduler.alive else 503
    wait = ((b"retry-after", b"%d" % busy.retry_after),)
    return HttpError(status, str(busy), code="server_busy", headers=wait)


def _failure(failed: _Failed) -> HttpError:
    # The details are in the log: they may hold text of the prompt.
    return HttpError(500, f"generation failed ({type(failed.error).__name__})", code="failed")


def _dropped() -> HttpError:
    return HttpError(503, "the answer was given up: the server is shutting down", code="dropped")
