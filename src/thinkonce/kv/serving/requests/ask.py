"""Reads the bodies of `chat/completions` and `completions` and checks every field it uses.

Unknown fields are accepted, as OpenAI-compatible servers do. A known field that this server
cannot honour is refused by name instead of being dropped.
"""

from __future__ import annotations

import re
import secrets
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from thinkonce.errors import RequestError
from thinkonce.kv.generation.generator import Sampling
from thinkonce.kv.serving.requests.controls import KvControls, controls_in
from thinkonce.kv.serving.requests.wrong import object_in, wrong_in

__all__ = ("ChatAsk", "Defaults", "TextAsk", "read_chat", "read_text")

# More choices than this would hold the one worker for everybody else.
_MOST_CHOICES = 16
_MOST_STOPS = 16
# Each token of an answer is looked at for how much of each stop text ends it.
_LONGEST_STOP = 1024
_OPENAI_TEXT_TOKENS = 16  # what `completions` promises where max_tokens is absent

_Count = Annotated[int, Meta(ge=0)]
_Penalty = Annotated[float, Meta(ge=-2, le=2)]
_Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class Defaults(msgspec.Struct, frozen=True):
    """What a request gets that says nothing, and how many tokens the model has logits for."""

    temperature: float
    top_p: float
    top_k: int
    max_tokens: int
    vocabulary: int


class _StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None


class _Ask(msgspec.Struct, frozen=True, kw_only=True):
    """The fields both endpoints share; null and absent mean the same."""

    model: str | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=_MOST_CHOICES)] | None = None
    max_tokens: _Count | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1)] | None = None
    seed: _Seed | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    stop: str | list[str] | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    prompt_cache_key: Annotated[str, Meta(max_length=1024)] | None = None
    kv_cache: Any = None

    @property
    def choices(self) -> int:
        return self.n or 1

    @property
    def attention(self) -> KvControls:
        """Checked when the body was read."""
        return controls_in(self.kv_cache)

    @property
    def stops(self) -> tuple[str, ...]:
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(stops)

    @property
    def include_usage(self) -> bool:
        """An explanation is told there, so whoever asks for one gets it too."""
        asked = self.stream_options and self.stream_options.include_usage
        return bool(asked or self.attention.explain)

    @property
    def asked_tokens(self) -> int | None:
        """The bound the client set on the answer, if any; 0: the prompt is only read."""
        return self.max_tokens

    @property
    def alternatives(self) -> int | None:
        """How many alternatives to report for each token, None for no log-probabilities."""
        raise NotImplementedError

    def sampling(self, defaults: Defaults, max_tokens: int) -> Sampling:
        return Sampling(
            max_tokens=max_tokens,
            temperature=_or(self.temperature, defaults.temperature),
            top_p=_or(self.top_p, defaults.top_p),
            top_k=max(0, _or(self.top_k, defaults.top_k)),
            # Room for one seed per choice below the largest one the generator takes.
            seed=secrets.randbits(62) if self.seed is None else self.seed,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            logit_bias={int(token): bias for token, bias in (self.logit_bias or {}).items()},
            logprobs=self.alternatives,
        )


class ChatAsk(_Ask, frozen=True, kw_only=True):
    """A checked body of `chat/completions`; `messages` still as the client wrote them."""

    messages: Annotated[list[dict[str, Any]], Meta(min_length=1)]
    max_completion_tokens: _Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    functions: list[Any] | None = None
    response_format: dict[str, Any] | None = None
    modalities: list[str] | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    @property
    def asked_tokens(self) -> int | None:
        # max_tokens is the deprecated name; the newer one is what its sender means.
        newer = self.max_completion_tokens
        return self.max_tokens if newer is None else newer

    @property
    def alternatives(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None


class TextAsk(_Ask, frozen=True, kw_only=True):
    """A checked body of `completions`. `prompt` is text, token ids, or a list of either."""

    prompt: str | list[Any]
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None

    @property
    def asked_tokens(self) -> int:
        return _OPENAI_TEXT_TOKENS if self.max_tokens is None else self.max_tokens

    @property
    def alternatives(self) -> int | None:
        return self.logprobs

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts one by one. Raises RequestError where they are neither text nor ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if self.prompt and all(_is_id(item) for item in self.prompt):
            return [self.prompt]
        for place, item in enumerate(self.prompt):
            if not isinstance(item, str) and not (
                isinstance(item, list) and all(_is_id(token) for token in item)
            ):
                raise RequestError(f"prompt[{place}]", item, "text or a list of token ids")
        return self.prompt


_AnyAsk = TypeVar("_AnyAsk", ChatAsk, TextAsk)


def read_chat(body: bytes, defaults: Defaults) -> ChatAsk:
    """Raises RequestError naming the field that is wrong."""
    ask = _read(body, ChatAsk, defaults)
    if ask.top_logprobs is not None and not ask.logprobs:
        raise RequestError("top_logprobs", ask.top_logprobs, "a number where logprobs is true")
    if ask.functions:
        raise RequestError("functions", "a list", "nothing; `tools` took its place")
    if (kind := (ask.response_format or {}).get("type", "text")) != "text":
        raise RequestError("response_format.type", kind, "'text'; this server cannot enforce more")
    if any(kind != "text" for kind in ask.modalities or ()):
        raise RequestError("modalities", ask.modalities, "['text']")
    _check_tool_choice(ask)
    return ask


def read_text(body: bytes, defaults: Defaults) -> TextAsk:
    """Raises RequestError naming the field that is wrong."""
    ask = _read(body, TextAsk, defaults)
    if not ask.prompts:
        raise RequestError("prompt", ask.prompt, "at least one prompt")
    if len(ask.prompts) * ask.choices > _MOST_CHOICES:
        raise RequestError("prompt", f"{len(ask.prompts)} prompts", f"{_MOST_CHOICES} answers")
    if ask.suffix:
        raise RequestError("suffix", ask.suffix, "nothing; this server cannot fill a gap")
    if (ask.best_of or 1) != 1 and ask.best_of != ask.choices:
        raise RequestError("best_of", ask.best_of, "the value of n")
    if ask.echo and ask.logprobs is not None:
        raise RequestError("echo", True, "false where logprobs are asked for")
    return ask


def _check_tool_choice(ask: ChatAsk) -> None:
    choice = ask.tool_choice
    if choice is None or choice == "none":
        return
    if choice != "auto":
        raise RequestError("tool_choice", choice, "'auto' or 'none'; a call cannot be enforced")
    if not ask.tools:
        raise RequestError("tool_choice", choice, "a value only together with tools")


def _read(body: bytes, kind: type[_AnyAsk], defaults: Defaults) -> _AnyAsk:
    raw = object_in(body)
    try:
        ask = msgspec.convert(raw, kind)
    except msgspec.ValidationError as wrong:
        raise wrong_in(raw, wrong, kind) from wrong
    _check_shared(ask, defaults)
    return ask


def _check_shared(ask: _Ask, defaults: Defaults) -> None:
    if len(ask.stops) > _MOST_STOPS or not all(
        0 < len(stop) <= _LONGEST_STOP for stop in ask.stops
    ):
        accepts = f"up to {_MOST_STOPS} texts of 1 to {_LONGEST_STOP} characters"
        raise RequestError("stop", ask.stop, accepts)
    controls_in(ask.kv_cache)
    if ask.stream_options is not None and not ask.stream:
        raise RequestError("stream_options", "an object", "nothing where stream is not true")
    for token in ask.logit_bias or {}:
        if not re.fullmatch(r"[0-9]{1,9}", token) or int(token) >= defaults.vocabulary:
            raise RequestError(
                "logit_bias", token, f"token ids from 0 to {defaults.vocabulary - 1}"
            )


def _is_id(item: object) -> bool:
    return isinstance(item, int) and not isinstance(item, bool) and item >= 0


_Number = TypeVar("_Number", int, float)


def _or(value: _Number | None, default: _Number) -> _Number:
    return default if value is None else value
