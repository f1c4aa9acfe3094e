"""`POST /kv/preload`: a batch of prompts, read ahead of time and kept.

    line ──► read as its endpoint reads it ──► behind all requests ──► kept? why not?

Lines are those of OpenAI's Batch format, as `/cache/preload` of the gateway takes them; one line
of JSON comes back for each, as it is done, then sums. One is read at a time. What is kept already
costs nothing, so a batch that was broken off is sent again from its beginning.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress
from typing import Any
from urllib.parse import urlsplit

import msgspec

from thinkonce.errors import RequestError
from thinkonce.kv.engine import KvEngine
from thinkonce.kv.prefix.owner import Owner
from thinkonce.kv.serving.admin.read_ahead import Preloaded, Progress, ReadAhead
from thinkonce.kv.serving.answers.answer import Work
from thinkonce.kv.serving.http import Incoming, Reply
from thinkonce.kv.serving.intake import Intake
from thinkonce.kv.serving.line.line import Demand
from thinkonce.kv.serving.line.scheduler import Scheduler
from thinkonce.web.exchange import HttpError, Message
from thinkonce.web.lines import Ahead, Line, lines_of, reading_ahead

__all__ = ("MOST_SAID", "Batch", "Result", "preload")

MOST_SAID = 300
"""Characters of an error that a line tells."""


class _BatchLine(msgspec.Struct, kw_only=True):
    url: str
    body: msgspec.Raw
    custom_id: str = ""
    method: str = "POST"


class Result(msgspec.Struct, kw_only=True):
    """What became of a line. `stored`: all its full blocks are kept now; else `error` says why not.

    `outcome` "hit": they were kept already. Of `prompt_tokens`, `cached_tokens` were known before,
    `kept_tokens` are now.
    """

    line: int
    stored: bool
    custom_id: str = ""
    outcome: str = ""
    status: int = 0
    error: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    kept_tokens: int = 0


class _Reading(msgspec.Struct):
    """Of a line that is being read; only with ?progress=true."""

    line: int
    read: int
    of: int


_decode_line = msgspec.json.Decoder(_BatchLine).decode


async def preload(batch: Batch, request: Incoming, reply: Reply, limit: int) -> None:
    """Answer the request; `batch.counts` tells what came of it.

    `limit`: bytes of one line. Raises ClientGone: what was under way is given up then. Where the
    server ends, so does the answer, without sums.
    """
    tells = request.flag("progress")
    async with reading_ahead(request) as ahead:
        lines = lines_of(request, limit, ahead.receive)
        await reply.open_lines()
        async for line in lines:
            async with aclosing(batch.one(line, ahead)) as rows:
                async for row in rows:
                    if tells or isinstance(row, Result):
                        await reply.event(msgspec.json.encode(row) + b"\n")
            if batch.is_over:
                await reply.close_stream()
                return
    await reply.event(msgspec.json.encode({"done": True, **batch.counts}) + b"\n")
    await reply.close_stream()


class Batch:
    """The lines of one call, whose prompts are `owner`'s."""

    def __init__(
        self,
        engine: KvEngine,
        scheduler: Scheduler,
        intake: Intake,
        owner: Owner,
    ) -> None:
        self._engine, self._scheduler, self._intake = engine, scheduler, intake
        self._owner = owner
        self.is_over = False  # the model is not there any more
        self.counts = dict.fromkeys(("lines", "stored", "already", "failed"), 0)
        self._readers: dict[str, Any] = {
            "chat/completions": intake.chat,
            "completions": intake.text,
            "messages": intake.messages,
        }

    async def one(self, line: Line, ahead: Ahead) -> AsyncGenerator[_Reading | Result, None]:
        """How far it is, then its result. Raises ClientGone; whatever else is the line's own."""
        number, raw = line
        result = Result(line=number, stored=False)
        try:
            async for progress in self._read(number, raw, ahead, result):
                yield progress
            result.status = 200
        except (HttpError, RequestError) as error:
            result.status = getattr(error, "status", 400)
            result.error = f"{error!s:.{MOST_SAID}}"
            self.is_over = result.status == 503
        self.counts["lines"] += 1
        there = "already" if result.outcome == "hit" else "stored"
        self.counts[there if result.stored else "failed"] += 1
        yield result

    async def _read(
        self, number: int, raw: bytes | None, ahead: Ahead, result: Result
    ) -> AsyncIterator[_Reading]:
        work = await self._work(_line(raw), result)
        demand = Demand(work.owner.tenant, sum(map(len, work.prompts)))
        reading = ReadAhead(self._engine, work).in_line(self._scheduler, _gone(ahead), demand)
        async with aclosing(reading) as steps:
            async for step in steps:
                if isinstance(step, Progress):
                    yield _Reading(number, step.tokens, step.of)
                else:
                    _tell(step, result)

    async def _work(self, line: _BatchLine, result: Result) -> Work:
        result.custom_id = line.custom_id
        name = ""
        with suppress(ValueError):  # brackets that hold no address
            name = urlsplit(line.url).path.strip("/").removeprefix("v1/")
        if name not in self._readers or line.method.upper() != "POST":
            known = ", ".join(f"/v1/{each}" for each in self._readers)
            raise RequestError("url", f"{line.method} {line.url}"[:200], f"POST to one of {known}")
        _, work = await self._readers[name](bytes(line.body), self._owner, is_ahead=True)
        found: Work = work
        return found


def _line(raw: bytes | None) -> _BatchLine:
    if raw is None:
        raise HttpError(413, "the line is longer than this server reads at a time")
    try:
        return _decode_line(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        accepts = f"custom_id, method, url and body of OpenAI's Batch format ({error})"
        raise RequestError("JSON", raw[:60].decode(errors="replace"), accepts) from error


def _tell(kept: Preloaded, result: Result) -> None:
    result.prompt_tokens, result.cached_tokens = kept.prompt_tokens, kept.cached_tokens
    result.kept_tokens = kept.kept_tokens
    result.stored = 0 < kept.whole_tokens == kept.kept_tokens
    result.outcome = "hit" if 0 < kept.whole_tokens == kept.cached_tokens else "miss"
    if not kept.whole_tokens:
        raise HttpError(400, f"{kept.prompt_tokens} tokens are too short: they fill no block")
    if not result.stored:
        have = f"{kept.kept_tokens} of {kept.whole_tokens} tokens"
        raise HttpError(507, f"{have} found room; give [kv] memory more, or preload less")


def _gone(ahead: Ahead) -> Callable[[], Any]:
    """The request's messages as whoever watches for its end wants them."""

    async def receive() -> Message:
        await ahead.gone
        return {"type": "http.disconnect"}

    return receive
