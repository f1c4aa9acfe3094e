"""The files of `[kv] public`: messages that everybody's prompts may begin with, and their tokens.

A file is JSON as a chat completion's body has it: `messages`, and `tools` where there are any; or
`prompt`, a text, for completions. What the model's chat template makes of them differs at the end
with what follows, so what is public is what it makes of all of some beginnings of a next message.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from thinkonce.errors import ConfigError, RequestError
from thinkonce.kv.engine import KvEngine
from thinkonce.kv.generation.generator import Sampling, TooLong
from thinkonce.kv.prefix.prompt import Prompt
from thinkonce.kv.prefix.public import PUBLIC, PublicPrefixes
from thinkonce.kv.prefix.terms import Terms
from thinkonce.kv.serving.admin.read_ahead import ReadAhead
from thinkonce.kv.serving.answers.answer import Work
from thinkonce.kv.serving.line.scheduler import Scheduler
from thinkonce.kv.serving.line.ticket import Turn
from thinkonce.kv.serving.requests.ask import ChatAsk
from thinkonce.kv.serving.requests.prompt import chat_tokens, text_tokens
from thinkonce.kv.weights.model import Model

__all__ = ("public_prefixes", "read_public_ahead")

_logger = logging.getLogger("thinkonce.kv")

# Of different kinds, so that no token at the seam is the same behind all of them.
_NEXT = ("a", "7", "你", "\n", " x", "<", "The")


class _File(msgspec.Struct, forbid_unknown_fields=True):
    messages: list[dict[str, Any]] = []
    tools: list[dict[str, Any]] | None = None
    prompt: str = ""


def public_prefixes(model: Model, paths: Sequence[str]) -> PublicPrefixes:
    """Raises ConfigError that names a file which cannot be read, or not be made a prompt of."""
    return PublicPrefixes([_beginning(model, Path(path)) for path in paths])


def read_public_ahead(engine: KvEngine, scheduler: Scheduler, public: PublicPrefixes) -> None:
    """Have them read while nothing else is asked, and kept rather than others."""
    for tokens in public.prefixes:
        terms, nothing = Terms(priority="high"), Sampling(max_tokens=0)
        work = Work((Prompt(tokens),), 1, nothing, owner=PUBLIC, terms=terms)
        if not engine.keepable(work.asking(0)):
            _logger.warning("[kv] public: %d tokens fill no block and are not shared", len(tokens))
            continue
        scheduler.submit(_turns(ReadAhead(engine, work)), _dropped, is_ahead=True)


def _turns(reading: ReadAhead) -> Callable[[Callable[[], bool]], Iterator[Turn]]:
    def run(cancelled: Callable[[], bool]) -> Iterator[Turn]:
        try:
            yield from (step for step in reading.steps(cancelled) if isinstance(step, Turn))
        except TooLong as error:
            _logger.warning("[kv] public: %s", error)

    return run


def _dropped(why: Exception) -> None:
    _logger.info("[kv] public: not read ahead: %s", why)


def _beginning(model: Model, path: Path) -> tuple[int, ...]:
    try:
        said = msgspec.json.decode(path.read_bytes(), type=_File)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError("[kv] public", str(path), f"a JSON file of messages ({error})") from None
    if bool(said.messages) == bool(said.prompt):
        raise ConfigError("[kv] public", str(path), "a file with either messages or prompt")
    try:
        return _common([_tokens(model, said, following) for following in _NEXT])
    except (RequestError, TooLong) as error:
        accepts = f"messages of which this model's template makes a prompt ({error})"
        raise ConfigError("[kv] public", str(path), accepts) from None


def _tokens(model: Model, said: _File, following: str) -> tuple[int, ...]:
    if said.prompt:
        return text_tokens(model.tokenizer, said.prompt + following, model.vocabulary)
    messages = [*said.messages, {"role": "user", "content": following}]
    return tuple(chat_tokens(model.tokenizer, ChatAsk(messages=messages, tools=said.tools)))


def _common(several: Sequence[Sequence[int]]) -> tuple[int, ...]:
    first, length = several[0], 0
    for length, ids in enumerate(zip(*several, strict=False)):
        if len(set(ids)) > 1:
            return tuple(first[:length])
    return tuple(first[: length + 1])
