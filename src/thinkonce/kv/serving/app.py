"""The model server's paths, as a plain ASGI callable: what comes in, what goes out."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from thinkonce.errors import RequestError
from thinkonce.kv.engine import KvEngine
from thinkonce.kv.generation.generator import TooLong
from thinkonce.kv.prefix.owner import Owner
from thinkonce.kv.serving.admin import authorise, read_purge
from thinkonce.kv.serving.answer import Work, answer
from thinkonce.kv.serving.ask import ChatAsk, Defaults, TextAsk, read_chat, read_text
from thinkonce.kv.serving.breakpoints import life_asked
from thinkonce.kv.serving.delivery import deliver
from thinkonce.kv.serving.explain import asks_text, explained
from thinkonce.kv.serving.http import Reply, read_body
from thinkonce.kv.serving.limits import change_limits
from thinkonce.kv.serving.line import Demand
from thinkonce.kv.serving.messages import read_messages
from thinkonce.kv.serving.messages_reply import Kept, MessagesDialect, messages_error
from thinkonce.kv.serving.metrics import TEXT_TYPE, exposition
from thinkonce.kv.serving.owners import Owners
from thinkonce.kv.serving.prompt import called_tools, chat_tokens, text_tokens
from thinkonce.kv.serving.reply import ChatDialect, Dialect, TextDialect
from thinkonce.kv.serving.scheduler import Scheduler
from thinkonce.kv.weights.model import Model
from thinkonce.web.exchange import OVERSIZED, ClientGone, HttpError, Receive, Scope, Send

__all__ = ("ModelApp", "ModelLimits")

_logger = logging.getLogger("thinkonce.kv")
_access = logging.getLogger("thinkonce.kv.access")

_NOT_YET = (
    *("/embeddings", "/responses", "/openapi.json", "/dashboard"),
    "/kv/preload",
)


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """`max_body_bytes` of one request; `default_max_tokens` of an answer that set no bound.

    The second keeps a small model that repeats itself from holding the worker until its
    context is full, which takes minutes on a CPU.
    """

    max_body_bytes: int = 8 * 1024 * 1024
    default_max_tokens: int = 1024


_Handler = Callable[[bytes, Owner, Receive, Reply], Awaitable[None]]


class ModelApp:
    """Serves one loaded model in OpenAI's protocol. Runs on one event loop.

    The engine's generator is called on the scheduler's thread only; templates and tokenising run
    on a thread of their own, so that a long prompt does not hold up other requests.
    """

    def __init__(
        self,
        model: Model,
        engine: KvEngine,
        scheduler: Scheduler,
        *,
        owners: Owners | None = None,
        limits: ModelLimits | None = None,
        access_log: bool = False,
    ) -> None:
        self.scheduler = scheduler
        self._model, self._engine = model, engine
        self._owners = owners or Owners()
        self._limits = limits or ModelLimits()
        self._access_log = access_log
        self._created = int(time.time())
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="thinkonce-tokenise")
        self._defaults = Defaults(
            temperature=model.temperature,
            top_p=model.top_p,
            top_k=model.top_k,
            max_tokens=self._limits.default_max_tokens,
            vocabulary=model.vocabulary,
        )
        self._posts: dict[str, _Handler] = {
            "/chat/completions": self._chat,
            "/completions": self._text,
            "/messages": self._messages,
        }

    def close(self) -> None:
        """End the tokenising thread. The scheduler is its maker's to close."""
        self._reader.shutdown()

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
                _log(scope, reply, time.monotonic() - began)

    async def _route(self, scope: Scope, receive: Receive, reply: Reply) -> None:
        if oversized := scope["state"].get(OVERSIZED):
            raise oversized()
        method, path = scope["method"], scope["path"].removeprefix("/v1") or "/"
        if handler := self._posts.get(path):
            _allow(method, "POST")
            owner = self._owners.of(scope)
            body = await read_body(scope, receive, self._limits.max_body_bytes)
            await handler(body, owner, receive, reply)
        elif path == "/kv/purge":
            _allow(method, "POST")
            authorise(scope, self._owners.secret)
            body = await read_body(scope, receive, self._limits.max_body_bytes)
            await self._purge(body, reply)
        elif path == "/kv/explain":
            _allow(method, "POST")
            authorise(scope, self._owners.secret)
            owner = self._owners.of(scope)
            body = await read_body(scope, receive, self._limits.max_body_bytes)
            await self._explain(body, owner, reply)
        elif path == "/kv/limits":
            _allow(method, "POST")
            authorise(scope, self._owners.secret)
            body = await read_body(scope, receive, self._limits.max_body_bytes)
            told = change_limits(body, self._engine, self.scheduler)
            await reply.json(msgspec.json.encode(told))
        elif path in _NOT_YET:
            raise HttpError(501, f"{path} is not built yet in this server", code="not_implemented")
        elif path == "/metrics":
            _allow(method, "GET", "HEAD")
            await reply.whole(TEXT_TYPE, self._metrics())
        else:
            page = self._page(path)
            _allow(method, "GET", "HEAD")
            await reply.json(msgspec.json.encode(page), 200 if self._is_well(path) else 503)

    def _metrics(self) -> bytes:
        line = self.scheduler
        return exposition(self._engine.stats(), waiting=line.waiting, running=line.running)

    def _page(self, path: str) -> dict[str, Any]:
        """What is only read."""
        if path in ("/healthz", "/readyz"):
            ill = "the model's thread has died" if self.scheduler.died else "shutting down"
            return {"status": "ok" if self._is_well(path) else ill}
        if path == "/kv/stats":
            return {**self._engine.stats(), "line": self.scheduler.stats()}
        if path == "/models":
            return {"object": "list", "data": [self._card()]}
        if path.startswith("/models/"):
            self._check_model(path.removeprefix("/models/"))
            return self._card()
        raise HttpError(404, f"there is no {path} here", code="unknown_url")

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

    def _check_model(self, name: str | None) -> None:
        if name is not None and name.casefold() != self._model.name.casefold():
            message = f"the model {name!r} does not exist here; this server has {self._model.name}"
            raise HttpError(404, message, param="model", code="model_not_found")

    async def _chat(self, body: bytes, owner: Owner, receive: Receive, reply: Reply) -> None:
        ask: ChatAsk = await self._off_loop(read_chat, body, self._defaults)
        self._check_model(ask.model)
        tokens = await self._off_loop(chat_tokens, self._model.tokenizer, ask)
        dialect = ChatDialect(
            self._model.name,
            self._model.tokenizer,
            tools=called_tools(self._model.tokenizer, ask),
            logprobs=bool(ask.logprobs),
            include_usage=ask.include_usage,
        )
        work = _of(owner, ask, self._work(ask, [tokens], "messages"))
        await self._answer(ask, work, dialect, receive, reply)

    async def _messages(self, body: bytes, owner: Owner, receive: Receive, reply: Reply) -> None:
        ask, life = await self._off_loop(read_messages, body, self._defaults)
        self._check_model(ask.model)
        tokens = await self._off_loop(chat_tokens, self._model.tokenizer, ask)
        work = _of(owner, ask, self._work(ask, [tokens], "messages"), life)
        exact = self._engine.exact
        chunk = exact.chunk_tokens if exact is not None and work.terms.keeps else 0
        tools = called_tools(self._model.tokenizer, ask)
        dialect = MessagesDialect(self._model.name, Kept(chunk, work.terms.life), tools)
        await self._answer(ask, work, dialect, receive, reply)

    async def _text(self, body: bytes, owner: Owner, receive: Receive, reply: Reply) -> None:
        ask: TextAsk = await self._off_loop(read_text, body, self._defaults)
        self._check_model(ask.model)
        tokenizer, vocabulary = self._model.tokenizer, self._model.vocabulary
        prompts = [
            await self._off_loop(text_tokens, tokenizer, prompt, vocabulary)
            for prompt in ask.prompts
        ]
        dialect = TextDialect(
            self._model.name,
            tokenizer,
            echoes=self._echoes(ask) if ask.echo else (),
            logprobs=ask.logprobs is not None,
            include_usage=ask.include_usage,
        )
        work = _of(owner, ask, self._work(ask, prompts, "prompt"))
        await self._answer(ask, work, dialect, receive, reply)

    async def _purge(self, body: bytes, reply: Reply) -> None:
        ask = read_purge(body)
        if ask.model is not None:
            self._check_model(ask.model)
        try:
            gone = await asyncio.to_thread(self._engine.purge, ask.rule)
        except OSError as error:
            message = f"purged until this process ends: the folder was not written ({error})"
            raise HttpError(500, message, code="not_written") from error
        _logger.info("attention state was purged: %d blocks in memory", gone)
        await reply.json(msgspec.json.encode({"purged": gone}))

    async def _explain(self, body: bytes, owner: Owner, reply: Reply) -> None:
        """Of a body as `chat/completions` takes it, or `completions` where it has a `prompt`."""
        ask: ChatAsk | TextAsk
        tokenizer, vocabulary = self._model.tokenizer, self._model.vocabulary
        if await self._off_loop(asks_text, body):
            ask = text = await self._off_loop(read_text, body, self._defaults)
            prompts = [
                await self._off_loop(text_tokens, tokenizer, each, vocabulary)
                for each in text.prompts
            ]
        else:
            ask = await self._off_loop(read_chat, body, self._defaults)
            prompts = [await self._off_loop(chat_tokens, tokenizer, ask)]
        self._check_model(ask.model)
        work = _of(owner, ask, self._work(ask, prompts, "prompt"))
        told = await self._off_loop(explained, self._engine, work)
        await reply.json(msgspec.json.encode(told))

    def _echoes(self, ask: TextAsk) -> list[str]:
        """What to repeat before each choice."""
        decode = self._model.tokenizer.decode
        texts = [p if isinstance(p, str) else str(decode(p)) for p in ask.prompts]
        return [text for text in texts for _ in range(ask.choices)]

    async def _off_loop(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._reader, function, *arguments)

    def _work(self, ask: ChatAsk | TextAsk, prompts: list[tuple[int, ...]], field: str) -> Work:
        """Raises HttpError where the longest prompt and its answer do not fit the context."""
        context, longest = self._model.context_tokens, max(map(len, prompts))
        asked = ask.asked_tokens
        if longest + (asked or 1) > context:
            wants = f" and the answer may take {asked}" if asked else ""
            raise HttpError(
                400,
                f"this model's context holds {context} tokens; {field} takes {longest}{wants}. "
                "Shorten the prompt or lower max_tokens",
                param=field,
                code="context_length_exceeded",
            )
        bound = asked or min(self._defaults.max_tokens, context - longest)
        bound = self._within_memory(longest, bound, field, is_asked=asked is not None)
        return Work(tuple(prompts), ask.choices, ask.sampling(self._defaults, bound), ask.stops)

    def _within_memory(self, longest: int, bound: int, field: str, *, is_asked: bool) -> int:
        """How long the answer may be. Raises HttpError where it cannot be as long as asked."""
        most = self._engine.most_tokens()
        if most is not None and not is_asked:
            bound = max(1, min(bound, most - longest))
        try:
            self._engine.check(longest + bound)
        except TooLong as wrong:
            code = "context_length_exceeded"
            raise HttpError(400, str(wrong), param=field, code=code) from wrong
        return bound

    async def _answer(
        self,
        ask: ChatAsk | TextAsk,
        work: Work,
        dialect: Dialect | MessagesDialect,
        receive: Receive,
        reply: Reply,
    ) -> None:
        await deliver(
            lambda cancelled: answer(
                self._engine.generator, self._model.tokenizer, work, cancelled
            ),
            self.scheduler,
            dialect,
            receive,
            reply,
            demand=await self._off_loop(self._demand, work),
            stream=bool(ask.stream),
        )

    def _demand(self, work: Work) -> Demand:
        known = self._engine.known(work.prompts, work.owner) if work.terms.reads else lambda: 0
        return Demand(work.owner.tenant, sum(map(len, work.prompts)), known)


def _of(owner: Owner, ask: ChatAsk | TextAsk, work: Work, life: float | None = None) -> Work:
    """Whose the work is, and on what terms; `life`: what breakpoints asked for, if known."""
    said = ask.attention
    if life is None and isinstance(ask, ChatAsk):
        life = life_asked(ask.messages, ask.tools)
    return replace(work, owner=said.owner(owner, ask.prompt_cache_key), terms=said.terms(life))


def _allow(method: str, *allowed: str) -> None:
    if method not in allowed:
        headers = ((b"allow", ", ".join(allowed).encode()),)
        raise HttpError(405, f"{method} is not allowed here; use {allowed[0]}", headers=headers)


def _log(scope: Scope, reply: Reply, seconds: float) -> None:
    line = "%s %s %s %d ms id=%s"
    # The path as it was sent: decoded, it could hold a line break and forge a line.
    method, path, status = scope["method"], scope["raw_path"].decode("latin-1"), reply.status
    ident = reply.request_id.decode()
    _access.info(line, method, path, status, round(seconds * 1000), ident)
