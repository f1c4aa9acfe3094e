"""The model server's paths, as a plain ASGI callable: what comes in, what goes out."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from thinkonce.errors import RequestError
from thinkonce.kv.engine import KvEngine
from thinkonce.kv.modules.registry import Schemas
from thinkonce.kv.prefix.owner import Owner
from thinkonce.kv.serving.admin.desk import Desk
from thinkonce.kv.serving.admin.gate import Gate
from thinkonce.kv.serving.admin.read_ahead import ReadAhead
from thinkonce.kv.serving.answers.answer import Work, answer
from thinkonce.kv.serving.answers.delivery import Produce, deliver
from thinkonce.kv.serving.answers.messages_reply import (
    MessagesDialect,
    messages_error,
)
from thinkonce.kv.serving.answers.reply import ChatDialect, Dialect, TextDialect
from thinkonce.kv.serving.clients import Access
from thinkonce.kv.serving.http import Incoming, Reply, read_body
from thinkonce.kv.serving.intake import Intake, ModelLimits
from thinkonce.kv.serving.line.line import Demand
from thinkonce.kv.serving.line.scheduler import Scheduler
from thinkonce.kv.serving.metrics import TEXT_TYPE, exposition
from thinkonce.kv.serving.owners import Owners
from thinkonce.kv.serving.requests.ask import ChatAsk, TextAsk
from thinkonce.kv.serving.requests.prompt import called_tools
from thinkonce.kv.weights.model import Model
from thinkonce.web.bodies import Bodies
from thinkonce.web.exchange import OVERSIZED, ClientGone, HttpError, Receive, Scope, Send
from thinkonce.web.log_lines import Probes

__all__ = ("ModelApp",)

_logger = logging.getLogger("thinkonce.kv")
_access = logging.getLogger("thinkonce.kv.access")

_WELL = ("/healthz", "/readyz")
_PAGES = (*_WELL, "/metrics", "/models", "/kv/stats")
_NOT_YET = ("/embeddings", "/responses", "/openapi.json", "/dashboard")


_Read = Callable[[bytes, Owner], Awaitable[tuple[Any, Work]]]
_Tell = Callable[[Any, Work, Receive, Reply], Awaitable[None]]


class ModelApp:
    """Serves one loaded model in OpenAI's protocol. Runs on one event loop.

    The engine's generator is called on the scheduler's thread only.
    """

    def __init__(
        self,
        model: Model,
        engine: KvEngine,
        scheduler: Scheduler,
        *,
        owners: Owners | None = None,
        admin_token: str = "",
        limits: ModelLimits | None = None,
        schemas: Schemas | None = None,
        access_log: bool = False,
    ) -> None:
        self.scheduler = scheduler
        self._model, self._engine = model, engine
        self._owners = owners or Owners()
        self._limits = limits or ModelLimits()
        self._access_log, self._probes = access_log, Probes()
        self._created = int(time.time())
        self._intake = Intake(model, engine, self._limits, schemas)
        self._gate = Gate(self._owners.secret, admin_token)
        self._desk = Desk(engine, scheduler, self._intake, self._owners, self._gate, self._limits)
        self._bodies = Bodies(self._limits.max_reading_bytes)
        self._posts: dict[str, tuple[_Read, _Tell]] = {
            "/chat/completions": (self._intake.chat, self._chat),
            "/completions": (self._intake.text, self._text),
            "/messages": (self._intake.messages, self._messages),
        }

    def admit(self, access: Access) -> None:
        """These may ask and administer from now on. On the event loop of requests."""
        self._owners.adopt(access.clients)
        self._gate.token = access.admin_token

    def close(self) -> None:
        """End the tokenising thread. The scheduler is its maker's to close."""
        self._intake.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; every error becomes the protocol's error object."""
        if scope["type"] != "http":
            return
        reply = Reply(scope, send)
        began = time.monotonic()
        if scope["path"].removeprefix("/v1") == "/messages":
            reply.told = messages_error
        try:
            await self._route(scope, receive, reply)
        except RequestError as wrong:
            await reply.error(HttpError.of(wrong))
        except HttpError as error:
            await reply.error(error)
        except ClientGone:
            pass  # there is nobody to answer
        except Exception:
            _logger.exception("a request failed")
            if reply.started:
                raise
            await reply.error(HttpError(500, "this server failed; its log says how"))
        finally:
            if self._access_log:
                self._log(scope, reply, time.monotonic() - began)

    async def _route(self, scope: Scope, receive: Receive, reply: Reply) -> None:
        if oversized := scope["state"].get(OVERSIZED):
            raise oversized()
        method, path = scope["method"], scope["path"].removeprefix("/v1") or "/"
        if found := self._posts.get(path):
            _allow(method, "POST")
            read, tell = found
            with self._owners.request(scope, self._model.name) as owner:
                await tell(*await self._read(scope, receive, read, owner), receive, reply)
        elif wanted := self._desk.methods_of(path):
            _allow(method, *wanted)
            await self._desk.answer(path, Incoming(scope, receive), reply)
        elif path in _NOT_YET:
            raise HttpError(501, f"{path} is not built yet in this server", code="not_implemented")
        elif path == "/metrics":
            _allow(method, "GET", "HEAD")
            await reply.whole(TEXT_TYPE, self._metrics())
        else:
            if path not in _WELL:
                self._check_may_see(Incoming(scope, receive))
            page = self._page(path)
            _allow(method, "GET", "HEAD")
            await reply.json(msgspec.json.encode(page), 200 if self._is_well(path) else 503)

    async def _read(
        self, scope: Scope, receive: Receive, read: _Read, owner: Owner
    ) -> tuple[Any, Work]:
        """What is asked. The body is let go of before the answer begins."""
        held = 0

        def count(size: int) -> None:
            nonlocal held
            if not self._bodies.take(size, held):
                raise _no_room()
            held += size

        try:
            body = await read_body(scope, receive, self._limits.max_body_bytes, count)
            return await read(body, owner)
        finally:
            self._bodies.give_back(held)

    def _check_may_see(self, request: Incoming) -> None:
        """Raises HttpError 401 for who is no known client; administrators see what is below /kv."""
        try:
            self._owners.check_known(request.scope)
        except HttpError as unknown:
            if not request.path.startswith("/kv/"):
                raise
            try:
                self._gate.let_in(request)
            except HttpError:
                raise unknown from None

    def _metrics(self) -> bytes:
        line = self.scheduler
        return exposition(self._engine.stats(), line.stats(), alive=not line.died)

    def _page(self, path: str) -> dict[str, Any]:
        """What is only read."""
        if path in _WELL:
            ill = "the model's thread has died" if self.scheduler.died else "shutting down"
            return {"status": "ok" if self._is_well(path) else ill}
        if path == "/kv/stats":
            counted = {"schemas": self._intake.schemas.count, "line": self.scheduler.stats()}
            return {**self._engine.stats(), **counted}
        if path == "/models":
            return {"object": "list", "data": [self._card()]}
        if path.startswith("/models/"):
            self._intake.check_model(path.removeprefix("/models/"))
            return self._card()
        known = ", ".join(sorted((*self._posts, *self._desk.methods, *_PAGES)))
        message = f"there is no {path} here; there are {known}, each with /v1 before it too"
        raise HttpError(404, message, code="unknown_url")

    def _is_well(self, path: str) -> bool:
        if path == "/healthz":
            return not self.scheduler.died
        return path != "/readyz" or self.scheduler.alive

    def _card(self) -> dict[str, Any]:
        return {
            "id": self._model.name,
            "object": "model",
            "created": self._created,
            "owned_by": "thinkonce",
            "max_model_len": self._model.context_tokens,
        }

    async def _chat(self, ask: ChatAsk, work: Work, receive: Receive, reply: Reply) -> None:
        dialect = ChatDialect(
            self._model.name,
            self._model.tokenizer,
            tools=called_tools(self._model.tokenizer, ask),
            logprobs=bool(ask.logprobs),
            include_usage=ask.include_usage,
        )
        await self._answer(ask, work, dialect, receive, reply)

    async def _messages(self, ask: ChatAsk, work: Work, receive: Receive, reply: Reply) -> None:
        tools = called_tools(self._model.tokenizer, ask)
        dialect = MessagesDialect(self._model.name, work.terms.life, tools)
        await self._answer(ask, work, dialect, receive, reply)

    async def _text(self, ask: TextAsk, work: Work, receive: Receive, reply: Reply) -> None:
        dialect = TextDialect(
            self._model.name,
            self._model.tokenizer,
            echoes=self._echoes(ask) if ask.echo else (),
            logprobs=ask.logprobs is not None,
            include_usage=ask.include_usage,
        )
        await self._answer(ask, work, dialect, receive, reply)

    def _echoes(self, ask: TextAsk) -> list[str]:
        """What to repeat before each choice."""
        decode = self._model.tokenizer.decode
        texts = [p if isinstance(p, str) else str(decode(p)) for p in ask.prompts]
        return [text for text in texts for _ in range(ask.choices)]

    async def _answer(
        self,
        ask: ChatAsk | TextAsk,
        work: Work,
        dialect: Dialect | MessagesDialect,
        receive: Receive,
        reply: Reply,
    ) -> None:
        await deliver(
            self._produce(work),
            self.scheduler,
            dialect,
            receive,
            reply,
            demand=await self._intake.off_loop(work.owner, self._demand, work),
            stream=bool(ask.stream),
            is_ahead=work.is_ahead,
        )

    def _log(self, scope: Scope, reply: Reply, seconds: float) -> None:
        # The path as it was sent: decoded, it could hold a line break and forge a line.
        what = f"{scope['method']} {scope['raw_path'].decode('latin-1')}"
        level = logging.INFO if self._probes.is_news(what, reply.status or 0) else logging.DEBUG
        ident = reply.request_id.decode()
        _access.log(level, "%s %s %d ms id=%s", what, reply.status, round(seconds * 1000), ident)

    def _produce(self, work: Work) -> Produce:
        if work.is_ahead:
            return ReadAhead(self._engine, work, self._model.tokenizer).as_answer
        generator, tokenizer = self._engine.generator, self._model.tokenizer
        return lambda cancelled: answer(generator, tokenizer, work, cancelled)

    def _demand(self, work: Work) -> Demand:
        known = self._engine.known(work.askings)
        return Demand(work.owner.tenant, sum(map(len, work.prompts)), known)


def _no_room() -> HttpError:
    message = "the bodies of requests that are being read take all the room there is for them"
    return HttpError(503, message, code="server_busy", headers=((b"retry-after", b"1"),))


def _allow(method: str, *allowed: str) -> None:
    if method not in allowed:
        headers = ((b"allow", ", ".join(allowed).encode()),)
        raise HttpError(405, f"{method} is not allowed here; use {allowed[0]}", headers=headers)
