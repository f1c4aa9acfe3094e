"""Bodies become work for the model: fields are checked, templates applied, tokens counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from thinkonce.kv.engine import KvEngine
from thinkonce.kv.generation.generator import TooLong
from thinkonce.kv.prefix.owner import Owner
from thinkonce.kv.serving.answer import Work
from thinkonce.kv.serving.ask import ChatAsk, Defaults, TextAsk, read_chat, read_text
from thinkonce.kv.serving.breakpoints import life_asked
from thinkonce.kv.serving.messages import read_messages
from thinkonce.kv.serving.prompt import chat_tokens, text_tokens
from thinkonce.kv.weights.model import Model
from thinkonce.web.exchange import HttpError

__all__ = ("Intake", "ModelLimits")


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """`max_body_bytes` of one request; `default_max_tokens` of an answer that set no bound.

    The second keeps a small model that repeats itself from holding the worker until its
    context is full, which takes minutes on a CPU.
    """

    max_body_bytes: int = 8 * 1024 * 1024
    default_max_tokens: int = 1024


class Intake:
    """Reads the bodies of one model's requests. Belongs to one event loop.

    Templates and tokenising run on a thread of their own, so that a long prompt does not hold up
    other requests. Methods raise RequestError, and HttpError for another model or a prompt that
    does not fit.
    """

    def __init__(self, model: Model, engine: KvEngine, limits: ModelLimits) -> None:
        self.model, self._engine = model, engine
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="thinkonce-tokenise")
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

    async def chat(self, body: bytes, owner: Owner) -> tuple[ChatAsk, Work]:
        """Of `chat/completions`."""
        ask: ChatAsk = await self.off_loop(read_chat, body, self._defaults)
        self.check_model(ask.model)
        tokens = await self.off_loop(chat_tokens, self.model.tokenizer, ask)
        return ask, _of(owner, ask, self._work(ask, [tokens], "messages"))

    async def messages(self, body: bytes, owner: Owner) -> tuple[ChatAsk, Work]:
        """Of Anthropic's `messages`."""
        ask, life = await self.off_loop(read_messages, body, self._defaults)
        self.check_model(ask.model)
        tokens = await self.off_loop(chat_tokens, self.model.tokenizer, ask)
        return ask, _of(owner, ask, self._work(ask, [tokens], "messages"), life)

    async def text(self, body: bytes, owner: Owner) -> tuple[TextAsk, Work]:
        """Of `completions`."""
        ask: TextAsk = await self.off_loop(read_text, body, self._defaults)
        self.check_model(ask.model)
        tokenizer, vocabulary = self.model.tokenizer, self.model.vocabulary
        prompts = [
            await self.off_loop(text_tokens, tokenizer, prompt, vocabulary)
            for prompt in ask.prompts
        ]
        return ask, _of(owner, ask, self._work(ask, prompts, "prompt"))

    def check_model(self, name: str | None) -> None:
        if name is not None and name.casefold() != self.model.name.casefold():
            message = f"the model {name!r} does not exist here; this server has {self.model.name}"
            raise HttpError(404, message, param="model", code="model_not_found")

    async def off_loop(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """On the thread that tokenises."""
        return await asyncio.get_running_loop().run_in_executor(self._reader, function, *arguments)

    def _work(self, ask: ChatAsk | TextAsk, prompts: list[tuple[int, ...]], field: str) -> Work:
        """Raises HttpError where the longest prompt and its answer do not fit the context."""
        context, longest = self.model.context_tokens, max(map(len, prompts))
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


def _of(owner: Owner, ask: ChatAsk | TextAsk, work: Work, life: float | None = None) -> Work:
    """Whose the work is, and on what terms; `life`: what breakpoints asked for, if known."""
    said = ask.attention
    if life is None and isinstance(ask, ChatAsk):
        life = life_asked(ask.messages, ask.tools)
    return replace(work, owner=said.owner(owner, ask.prompt_cache_key), terms=said.terms(life))
