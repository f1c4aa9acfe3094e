"""The paths below /kv that change what is kept, or look into it: who may, and what is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from thinkonce.kv.engine import KvEngine
from thinkonce.kv.prefix.owner import NOBODY
from thinkonce.kv.serving.admin.entries import one_page, shown
from thinkonce.kv.serving.admin.gate import Gate, read_purge
from thinkonce.kv.serving.admin.limits import change_limits
from thinkonce.kv.serving.admin.preload import Batch, preload
from thinkonce.kv.serving.admin.schemas import SchemaDesk
from thinkonce.kv.serving.answers.explain import explained, without_texts
from thinkonce.kv.serving.http import Incoming, Reply
from thinkonce.kv.serving.intake import Intake, ModelLimits
from thinkonce.kv.serving.line.scheduler import Scheduler
from thinkonce.kv.serving.owners import Owners
from thinkonce.web.access import audited
from thinkonce.web.exchange import HttpError

__all__ = ("Desk",)

_ENTRIES, _SCHEMAS = "/kv/entries", "/kv/schemas"
Handler = Callable[[Incoming, Reply], Awaitable[None]]


class Desk:
    """Belongs to one event loop."""

    def __init__(
        self,
        engine: KvEngine,
        scheduler: Scheduler,
        intake: Intake,
        owners: Owners,
        gate: Gate,
        limits: ModelLimits,
    ) -> None:
        self._engine, self._scheduler = engine, scheduler
        self._intake, self._owners, self._gate = intake, owners, gate
        self._most = limits.max_body_bytes
        self._posts: dict[str, Handler] = {
            "/kv/purge": self._purge,
            "/kv/explain": self._explain,
            "/kv/limits": self._limits,
            "/kv/preload": self._preload,
            _SCHEMAS: self._schemas,
        }
        self._schema_desk = SchemaDesk(engine, scheduler, intake)
        self.methods: dict[str, tuple[str, ...]] = {
            **dict.fromkeys(self._posts, ("POST",)),
            _ENTRIES: ("GET",),
            _SCHEMAS: ("POST", "GET"),
        }

    def methods_of(self, path: str) -> tuple[str, ...]:
        """What it may be asked with; () for a path that is not below this desk."""
        if path.startswith(f"{_SCHEMAS}/"):
            return ("DELETE",)
        return self.methods.get(path, ("GET",) if path.startswith(f"{_ENTRIES}/") else ())

    async def answer(self, path: str, request: Incoming, reply: Reply) -> None:
        """`path`: asked with its method. Raises HttpError and RequestError."""
        self._gate.let_in(request)
        if path == _SCHEMAS and request.scope["method"] == "GET":
            await self._known_schemas(request, reply)
            return
        if path.startswith(f"{_SCHEMAS}/"):
            await self._forget_schema(path.removeprefix(f"{_SCHEMAS}/"), request, reply)
            return
        if handler := self._posts.get(path):
            await handler(request, reply)
            return
        name = path.removeprefix(_ENTRIES).strip("/")
        if name:
            tokenizer = self._intake.model.tokenizer
            told = await self._intake.off_loop(NOBODY, shown, self._engine, tokenizer, name)
        else:
            query = request.query("limit", "after")
            told = await asyncio.to_thread(one_page, self._engine, query)
        await reply.json(msgspec.json.encode(told), headers=((b"cache-control", b"no-store"),))

    async def _purge(self, request: Incoming, reply: Reply) -> None:
        raw = await request.body(self._most)
        ask = read_purge(raw)
        self._intake.check_model(ask.model)
        try:
            gone, on_disk = await asyncio.to_thread(self._engine.purge, ask.rule)
        except OSError as error:
            message = f"purged until this process ends: the folder was not written ({error})"
            raise HttpError(500, message, code="not_written") from error
        audited(request, reply.request_id, f"purged {gone} blocks in memory: {_said(ask)}")
        told: dict[str, Any] = {"purged": gone}
        if on_disk is not None:
            told["disk"] = on_disk
        await reply.json(msgspec.json.encode(told))

    async def _explain(self, request: Incoming, reply: Reply) -> None:
        """Of a body as any of the three paths that make answers takes it."""
        owner = self._owners.named(request)
        work = await self._intake.to_explain(await request.body(self._most), owner)
        tokenizer = self._intake.model.tokenizer
        told = await self._intake.off_loop(owner, explained, self._engine, tokenizer, work)
        if not self._owners.shows_texts(request):
            told = without_texts(told)
        await reply.json(msgspec.json.encode(told))

    async def _limits(self, request: Incoming, reply: Reply) -> None:
        wanted, told = change_limits(await request.body(self._most), self._engine, self._scheduler)
        audited(request, reply.request_id, f"limits set: {_said(wanted)}")
        await reply.json(msgspec.json.encode(told))

    async def _preload(self, request: Incoming, reply: Reply) -> None:
        owner = self._owners.named(request)
        batch = Batch(self._engine, self._scheduler, self._intake, owner)
        try:
            await preload(batch, request, reply, self._most)
        finally:  # a batch that was broken off has changed something too
            counts = ", ".join(f"{number} {name}" for name, number in batch.counts.items())
            audited(request, reply.request_id, f"preload: {counts}")

    async def _schemas(self, request: Incoming, reply: Reply) -> None:
        owner = self._owners.named(request)
        name = await self._schema_desk.post(owner, request, reply, self._most)
        audited(request, reply.request_id, f"schema {name!r}")

    async def _forget_schema(self, name: str, request: Incoming, reply: Reply) -> None:
        self._schema_desk.forget(self._owners.named(request), name)
        audited(request, reply.request_id, f"schema {name!r} forgotten")
        await reply.json(msgspec.json.encode({"forgotten": name}))

    async def _known_schemas(self, request: Incoming, reply: Reply) -> None:
        told = {"schemas": await self._schema_desk.told(self._owners.named(request))}
        await reply.json(msgspec.json.encode(told), headers=((b"cache-control", b"no-store"),))


def _said(wanted: msgspec.Struct) -> str:
    fields = msgspec.structs.asdict(wanted)
    return ", ".join(f"{name}={value!r}" for name, value in fields.items() if value) or "nothing"
