"""Bodies become work for the model: fields are checked, templates applied, tokens counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import msgspec

from thinkonce.errors import RequestError
from thinkonce.kv.engine import KvEngine
from thinkonce.kv.generation.generator import TooLong
from thinkonce.kv.modules.chat import Compiled, compiled
from thinkonce.kv.modules.markup import read_schema
from thinkonce.kv.modules.registry import Schemas
from thinkonce.kv.prefix.owner import Owner
from thinkonce.kv.prefix.prompt import Prompt
from thinkonce.kv.serving.answers.answer import Work
from thinkonce.kv.serving.answers.explain import dialect_of
from thinkonce.kv.serving.answers.room import longest_answer
from thinkonce.kv.serving.line.turns import Turns
from thinkonce.kv.serving.requests.ask import ChatAsk, Defaults, TextAsk, read_chat, read_text
from thinkonce.kv.serving.requests.breakpoints import life_asked
from thinkonce.kv.serving.requests.messages import read_messages
from thinkonce.kv.serving.requests.modular import module_tokens
from thinkonce.kv.serving.requests.prompt import chat_tokens, contents, longest_piece, text_tokens
from thinkonce.kv.weights.model import Model
from thinkonce.web.exchange import HttpError

__all__ = ("Intake", "ModelLimits")

_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """`max_body_bytes` of one request, `max_reading_bytes` of all that are being read;
    `default_max_tokens` of an answer that set no bound.

    The last keeps a small model that repeats itself from holding the worker until its
    context is full, which takes minutes on a CPU.
    """

    max_body_bytes: int = 8 * 1024 * 1024
    max_reading_bytes: int = 64 * 1024 * 1024
    default_max_tokens: int = 1024


class Intake:
    """Reads the bodies of one model's requests. Belongs to one event loop.

    Checks, templates and tokenising run on a thread of their own, so that a long prompt does not
    hold up the loop; tenants take turns of it. Methods raise RequestError, and HttpError for
    another model or a prompt that does not fit.
    """

    def __init__(
        self,
        model: Model,
        engine: KvEngine,
        limits: ModelLimits,
        schemas: Schemas | None = None,
    ) -> None:
        self.model, self._engine = model, engine
        self.schemas = schemas or Schemas()
        self._usual = engine.method
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="thinkonce-tokenise")
        self._turns = Turns()
        self._most_characters = model.context_tokens * longest_piece(model.tokenizer)
        self._defaults = Defaults(
            temperature=model.temperature,
            top_p=model.top_p,
            top_k=model.top_k,
            max_tokens=limits.default_max_tokens,
            vocabulary=model.vocabulary,
        )

    def close(self) -> None:
        """End the thread."""
        self._reader.shutdown()

    async def chat(
        self, body: bytes, owner: Owner, *, is_ahead: bool = False
    ) -> tuple[ChatAsk, Work]:
        """Of `chat/completions`. `is_ahead`: an answer is not made, whatever the body says."""
        given = (body, owner, is_ahead)
        found: tuple[ChatAsk, Work] = await self.off_loop(owner, self._chat, *given)
        return found

    async def messages(
        self, body: bytes, owner: Owner, *, is_ahead: bool = False
    ) -> tuple[ChatAsk, Work]:
        """Of Anthropic's `messages`."""
        found: tuple[ChatAsk, Work] = await self.off_loop(
            owner, self._messages, body, owner, is_ahead
        )
        return found

    async def text(
        self, body: bytes, owner: Owner, *, is_ahead: bool = False
    ) -> tuple[TextAsk, Work]:
        """Of `completions`."""
        given = (body, owner, is_ahead)
        found: tuple[TextAsk, Work] = await self.off_loop(owner, self._text, *given)
        return found

    async def to_explain(self, body: bytes, owner: Owner) -> Work:
        """Of any of these three, with the texts of its messages."""
        found: Work = await self.off_loop(owner, self._to_explain, body, owner)
        return found

    def check_model(self, name: str | None) -> None:
        if name is not None and name.casefold() != self.model.name.casefold():
            ours = self.model.name
            message = f"the model {name[:100]!r} does not exist here; this server has {ours}"
            raise HttpError(404, message, param="model", code="model_not_found")

    async def off_loop(self, owner: Owner, function: Callable[..., Any], *arguments: Any) -> Any:
        """On the thread that tokenises, when it is the turn of `owner`."""
        loop = asyncio.get_running_loop()
        async with self._turns.turn(owner.tenant):
            try:
                return await loop.run_in_executor(self._reader, function, *arguments)
            except RecursionError:
                raise RequestError("body", "a value in too many others", "fewer levels") from None

    def schema(self, text: str, owner: Owner) -> Compiled:
        """Check a schema in XML, and let `owner` name it from now on. On that thread too."""
        self._check_schemas()
        found = compiled(
            read_schema(text, self.schemas.folder), self.model.tokenizer, self.model.context_tokens
        )
        self.schemas.add(owner.tenant, found)
        return found

    # -- on that thread ------------------------------------------------------------------------

    def _to_explain(self, body: bytes, owner: Owner) -> Work:
        match dialect_of(body):
            case "text":
                return self._text(body, owner, False)[1]
            case "messages":
                ask, life = read_messages(body, self._defaults)
            case "chat":
                ask = read_chat(body, self._defaults)
                life = life_asked(ask.messages, ask.tools)
        return replace(self._work_of_chat(ask, owner, life, False)[1], contents=contents(ask))

    def _chat(self, body: bytes, owner: Owner, is_ahead: bool) -> tuple[ChatAsk, Work]:
        ask = read_chat(body, self._defaults)
        return self._work_of_chat(ask, owner, life_asked(ask.messages, ask.tools), is_ahead)

    def _messages(self, body: bytes, owner: Owner, is_ahead: bool) -> tuple[ChatAsk, Work]:
        ask, life = read_messages(body, self._defaults)
        return self._work_of_chat(ask, owner, life, is_ahead)

    def _work_of_chat(
        self, ask: ChatAsk, owner: Owner, life: float | None, is_ahead: bool
    ) -> tuple[ChatAsk, Work]:
        """And `ask` without its messages, which need not be held while it is answered."""
        self.check_model(ask.model)
        tokens = self._tokens_of_chat(ask, owner)
        work = _of(owner, ask, self._work(ask, [tokens], "messages", is_ahead), life)
        return msgspec.structs.replace(ask, messages=[]), work

    def _tokens_of_chat(self, ask: ChatAsk, owner: Owner) -> Prompt:
        tokenizer, most = self.model.tokenizer, self._most_characters
        if (name := ask.attention.schema) is None:
            return self._fitting("messages", chat_tokens, tokenizer, ask, most, self._usual)
        self._check_schemas()
        schema = self.schemas.find(owner.tenant, name)
        return self._fitting("messages", module_tokens, tokenizer, ask, schema, most)

    def _check_schemas(self) -> None:
        """Raises RequestError where prompts cannot be put together from schemas."""
        if not self._engine.keeps:
            raise RequestError("schema", "a schema", f"nothing here: {self._engine.why}")

    def _text(self, body: bytes, owner: Owner, is_ahead: bool) -> tuple[TextAsk, Work]:
        ask = read_text(body, self._defaults)
        self.check_model(ask.model)
        if (name := ask.attention.schema) is not None:
            raise RequestError("kv_cache.schema", name, "nothing here; schemas are of chats")
        tokenizer, bounds = self.model.tokenizer, (self.model.vocabulary, self._most_characters)
        prompts = [
            self._fitting("prompt", text_tokens, tokenizer, each, *bounds) for each in ask.prompts
        ]
        return ask, _of(owner, ask, self._work(ask, prompts, "prompt", is_ahead))

    def _fitting(self, field: str, made: Callable[..., _Made], *arguments: Any) -> _Made:
        """What `made` makes. Raises HttpError where that finds `field` too long."""
        try:
            return made(*arguments)
        except TooLong as wrong:
            code = "context_length_exceeded"
            raise HttpError(400, str(wrong), param=field, code=code) from wrong

    def _work(
        self,
        ask: ChatAsk | TextAsk,
        prompts: list[Prompt],
        field: str,
        is_ahead: bool = False,
    ) -> Work:
        """Raises HttpError where a prompt and its answer do not fit."""
        asked = 0 if is_ahead else ask.asked_tokens
        room = (self._engine, self.model.context_tokens, prompts, asked, self._defaults.max_tokens)
        bound = self._fitting(field, longest_answer, *room)
        return Work(tuple(prompts), ask.choices, ask.sampling(self._defaults, bound), ask.stops)


def _of(owner: Owner, ask: ChatAsk | TextAsk, work: Work, life: float | None = None) -> Work:
    """Whose the work is, and on what terms; `life`: what breakpoints asked for."""
    said = ask.attention
    documents = {name for prompt in work.prompts for name in prompt.documents}
    owner, terms = said.owner(owner, ask.prompt_cache_key, documents), said.terms(life)
    texts = contents(ask) if terms.explains and isinstance(ask, ChatAsk) else ()
    return replace(work, owner=owner, terms=terms, contents=texts)
