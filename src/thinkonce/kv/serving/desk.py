"""The paths below /kv that change what is kept, or look into it: who may, and what is answered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from thinkonce.kv.engine import KvEngine
from thinkonce.kv.serving.admin import authorise, read_purge
from thinkonce.kv.serving.explain import explained
from thinkonce.kv.serving.http import Reply, read_body
from thinkonce.kv.serving.intake import Intake
from thinkonce.kv.serving.limits import change_limits
from thinkonce.kv.serving.owners import Owners
from thinkonce.kv.serving.scheduler import Scheduler
from thinkonce.web.exchange import HttpError, Receive, Scope

__all__ = ("Desk",)

_logger = logging.getLogger("thinkonce.kv")

Handler = Callable[[Scope, Receive, Reply], Awaitable[None]]


class Desk:
    """Belongs to one event loop. `max_body_bytes` of one request."""

    def __init__(
        self,
        engine: KvEngine,
        scheduler: Scheduler,
        intake: Intake,
        owners: Owners,
        max_body_bytes: int,
    ) -> None:
        self._engine, self._scheduler = engine, scheduler
        self._intake, self._owners, self._most = intake, owners, max_body_bytes
        self._routes: dict[tuple[str, str], Handler] = {
            ("POST", "/kv/purge"): self._purge,
            ("POST", "/kv/explain"): self._explain,
            ("POST", "/kv/limits"): self._limits,
        }
        self.methods = {path: method for method, path in self._routes}

    async def answer(self, scope: Scope, path: str, receive: Receive, reply: Reply) -> None:
        """`path`: one of `methods`, asked with that method. Raises HttpError and RequestError."""
        authorise(scope, self._owners.secret)
        await self._routes[self.methods[path], path](scope, receive, reply)

    async def _purge(self, scope: Scope, receive: Receive, reply: Reply) -> None:
        ask = read_purge(await read_body(scope, receive, self._most))
        self._intake.check_model(ask.model)
        try:
            gone, on_disk = await asyncio.to_thread(self._engine.purge, ask.rule)
        except OSError as error:
            message = f"purged until this process ends: the folder was not written ({error})"
            raise HttpError(500, message, code="not_written") from error
        _logger.info("attention state was purged: %d blocks in memory", gone)
        told: dict[str, Any] = {"purged": gone}
        if on_disk is not None:
            told["disk"] = on_disk
        await reply.json(msgspec.json.encode(told))

    async def _explain(self, scope: Scope, receive: Receive, reply: Reply) -> None:
        """Of a body as any of the three paths that make answers takes it."""
        owner = self._owners.of(scope)
        body = await read_body(scope, receive, self._most)
        work = await self._intake.to_explain(body, owner)
        tokenizer = self._intake.model.tokenizer
        told = await self._intake.off_loop(owner, explained, self._engine, tokenizer, work)
        await reply.json(msgspec.json.encode(told))

    async def _limits(self, scope: Scope, receive: Receive, reply: Reply) -> None:
        body = await read_body(scope, receive, self._most)
        told = change_limits(body, self._engine, self._scheduler)
        await reply.json(msgspec.json.encode(told))
