"""Which of an answer's tokens its provider bills at which rate, as its usage says.

    OpenAI     prompt_tokens, of them prompt_tokens_details.cached_tokens and .cache_write_tokens;
               Responses: input_tokens and input_tokens_details
    Anthropic  input_tokens, beside them cache_read_input_tokens and cache_creation_input_tokens,
               of which cache_creation.ephemeral_1h_input_tokens are kept for an hour
    DeepSeek   prompt_tokens, of them prompt_cache_hit_tokens
    Moonshot   prompt_tokens, of them cached_tokens

Read on 2026-11-22: developers.openai.com/api/docs/guides/prompt-caching,
platform.claude.com/docs/en/build-with-claude/prompt-caching,
api-docs.deepseek.com/guides/kv_cache, platform.moonshot.ai/docs.
"""

from __future__ import annotations

import msgspec

from thinkonce.protocols.bounds import bounded
from thinkonce.protocols.reply import Reply

__all__ = ("Billed", "billed")

Count = int | float | None


class Billed(msgspec.Struct, frozen=True, gc=False):
    """Tokens of one call, each in one place. `written_1h` are kept for an hour, `written` less."""

    input: int = 0
    cached: int = 0
    written: int = 0
    written_1h: int = 0
    output: int = 0


class _Details(msgspec.Struct, gc=False):
    cached_tokens: Count = None
    cache_write_tokens: Count = None


class _Written(msgspec.Struct, gc=False):
    ephemeral_1h_input_tokens: Count = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    cached_tokens: Count = None
    prompt_cache_hit_tokens: Count = None
    cache_read_input_tokens: Count = None
    cache_creation_input_tokens: Count = None
    cache_creation: _Written | None = None


_NOTHING = _Usage()
_decode = msgspec.json.Decoder(_Usage).decode


def billed(reply: Reply) -> Billed:
    """Parts that add up to the reply's tokens, whatever the usage says of them."""
    said = _usage_of(reply)
    details = said.prompt_tokens_details or said.input_tokens_details or _Details()
    reads = (
        details.cached_tokens,
        said.cached_tokens,
        said.prompt_cache_hit_tokens,
        said.cache_read_input_tokens,
    )
    # Gateways in between say one number in several dialects' words.
    left = prompt = reply.prompt_tokens
    cached = min(left, max(map(bounded, reads)))
    left -= cached
    writes = (details.cache_write_tokens, said.cache_creation_input_tokens)
    written = min(left, max(map(bounded, writes)))
    left -= written
    longer = said.cache_creation
    hour = 0 if longer is None else min(written, bounded(longer.ephemeral_1h_input_tokens))
    assert left + cached + written == prompt
    return Billed(left, cached, written - hour, hour, reply.completion_tokens)


def _usage_of(reply: Reply) -> _Usage:
    try:
        return _decode(reply.usage) if reply.usage else _NOTHING
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _NOTHING
