"""From a request that names a schema to the tokens the model reads, and where they stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from thinkonce.errors import RequestError
from thinkonce.kv.modules.chat import Compiled
from thinkonce.kv.modules.prompt import ModulePrompt, put_together
from thinkonce.kv.serving.requests.ask import ChatAsk
from thinkonce.kv.serving.requests.prompt import check_length, plain_messages
from thinkonce.kv.serving.requests.veil import Veil

__all__ = ("module_tokens", "with_schema")


def module_tokens(
    tokenizer: Any, ask: ChatAsk, schema: Compiled, most: float = inf
) -> ModulePrompt:
    """The modules that the request takes, its arguments, and its messages behind the schema.

    Special tokens that a client typed, in messages or arguments, are read as the text they are.
    Raises RequestError for what does not fit the schema, and TooLong as `chat_tokens`.
    """
    if ask.tools and ask.tool_choice != "none":
        raise RequestError("tools", f"{len(ask.tools)} tools", "none where a schema is named")
    if ask.chat_template_kwargs:
        raise RequestError("chat_template_kwargs", "some", "nothing where a schema is named")
    said, veil = ask.attention, Veil(tokenizer)
    arguments = said.arguments or {}
    text = schema.chat.trailing(tokenizer, veil.over(plain_messages(ask)))
    check_length("".join((veil.typed(text), *arguments.values())), most)
    trailing = veil.tokens(text)
    names, cut = said.modules or (), veil.text_tokens
    is_exact = said.reuse == "exact"
    return put_together(schema.layout, names, arguments, trailing, cut, is_exact=is_exact)


def with_schema(
    fields: Mapping[str, Any],
    schema: str | None,
    modules: Sequence[str],
    arguments: Mapping[str, str] | None,
) -> dict[str, Any]:
    """Fields of a chat completion, with these in its `kv_cache`."""
    said = {"schema": schema, "modules": modules or None, "arguments": arguments}
    given = {name: value for name, value in said.items() if value is not None}
    if not given:
        return dict(fields)
    return {**fields, "kv_cache": {**(fields.get("kv_cache") or {}), **given}}
