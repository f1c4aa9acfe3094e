"""`/kv/schemas`: a schema is made known, and its scaffolds are read ahead of time and kept.

POST   XML ──► checked, laid out ──► known from here on ──► behind all requests ──► kept
GET    the schemas that the caller may name
DELETE one that is its own: forgotten, and what was read of it stays until room is needed
"""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import msgspec

from thinkonce.errors import RequestError
from thinkonce.kv.engine import KvEngine
from thinkonce.kv.generation.generator import Sampling
from thinkonce.kv.modules.chat import Compiled
from thinkonce.kv.modules.prompt import SchemaPrompt
from thinkonce.kv.prefix.owner import Owner
from thinkonce.kv.serving.admin.preload import MOST_SAID
from thinkonce.kv.serving.admin.read_ahead import Preloaded, ReadAhead
from thinkonce.kv.serving.answers.answer import Work
from thinkonce.kv.serving.http import Incoming, Reply
from thinkonce.kv.serving.intake import Intake
from thinkonce.kv.serving.line.line import Demand
from thinkonce.kv.serving.line.scheduler import Scheduler
from thinkonce.kv.serving.requests.controls import KvControls, controls_in
from thinkonce.kv.serving.requests.wrong import decoded
from thinkonce.web.exchange import HttpError

__all__ = ("SchemaDesk", "work_of_schema")


class _Posted(msgspec.Struct, forbid_unknown_fields=True):
    schema: str
    kv_cache: Any = None


def work_of_schema(schema: Compiled, owner: Owner, said: KvControls) -> Work:
    """Reading all of it, for requests that are to come. Raises RequestError."""
    _check(said)
    prompt, nothing = SchemaPrompt.made(schema.layout), Sampling(max_tokens=0)
    return Work((prompt,), 1, nothing, (), said.owner(owner, None), said.terms())


class SchemaDesk:
    """Belongs to one event loop."""

    def __init__(self, engine: KvEngine, scheduler: Scheduler, intake: Intake) -> None:
        self._engine, self._scheduler, self._intake = engine, scheduler, intake

    async def told(self, owner: Owner) -> list[dict[str, Any]]:
        """What `owner` may name, described."""
        schemas = self._intake.schemas.of(owner.tenant)
        return [each.described() for each in schemas]

    def forget(self, owner: Owner, name: str) -> None:
        """Raises HttpError 404 for one that `owner` has not, 403 for everybody's."""
        if self._intake.schemas.remove(owner.tenant, name):
            return
        if self._intake.schemas.is_shared(name):
            message = f"schema {name!r:.80} is a file of this server, which all clients share"
            raise HttpError(403, message, code="forbidden", param="schema")
        message = f"this client has no schema {name!r:.80}"
        raise HttpError(404, message, code="unknown_schema", param="schema")

    async def post(self, owner: Owner, request: Incoming, reply: Reply, limit: int) -> str:
        """Answer the request; the schema's name. Raises RequestError, and ClientGone: what was
        under way is given up then, and the schema is known all the same.
        """
        posted = decoded(await request.body(limit), _Posted)
        said = controls_in(posted.kv_cache)
        _check(said)
        tells = request.flag("progress")
        found: Compiled = await self._intake.off_loop(
            owner, self._intake.schema, posted.schema, owner
        )
        work, demand = work_of_schema(found, owner, said), Demand(owner.tenant, found.rows)
        ahead = ReadAhead(self._engine, work)
        reading = ahead.in_line(self._scheduler, request.receive, demand)
        await reply.open_lines()
        last = {"done": True, **found.described()}
        try:
            async with aclosing(reading) as steps:
                async for step in steps:
                    if isinstance(step, Preloaded):
                        last |= _kept(step)
                    elif tells:
                        row = {"read": step.tokens, "of": step.of}
                        await reply.event(msgspec.json.encode(row) + b"\n")
        except (HttpError, RequestError) as wrong:
            last |= {"stored": False, "error": f"{wrong!s:.{MOST_SAID}}"}
        await reply.event(msgspec.json.encode(last) + b"\n")
        await reply.close_stream()
        return found.name


def _check(said: KvControls) -> None:
    """Raises RequestError for what makes no sense here, before the schema is known."""
    if said.schema is not None:
        raise RequestError("kv_cache.schema", said.schema, "nothing beside a schema's own text")
    if said.enabled is False:
        raise RequestError("kv_cache.enabled", False, "true, where a schema is only read")


def _kept(kept: Preloaded) -> dict[str, Any]:
    """`stored`: all of it is kept now; of its scaffolds' tokens, what was known before and what
    is kept.
    """
    return {
        "stored": kept.kept_tokens == kept.whole_tokens,
        "scaffold_tokens": kept.whole_tokens,
        "cached_tokens": kept.cached_tokens,
        "kept_tokens": kept.kept_tokens,
    }
