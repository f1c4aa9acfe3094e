"""Whatever JSON comes in, it is read or refused by name; nothing else happens."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_model import make_tokenizer

from thinkonce.errors import RequestError
from thinkonce.kv.generation.generator import Sampling
from thinkonce.kv.serving.requests.ask import ChatAsk, Defaults, TextAsk, read_chat, read_text
from thinkonce.kv.serving.requests.prompt import chat_tokens, text_tokens

TOKENIZER = make_tokenizer()
DEFAULTS = Defaults(temperature=0.7, top_p=0.9, top_k=40, max_tokens=99, vocabulary=400)
MESSAGES = [{"role": "user", "content": "hi"}]

NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
LEAVES = st.none() | st.booleans() | NUMBERS | st.text(max_size=5)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
FIELDS = sorted({*ChatAsk.__struct_fields__, *TextAsk.__struct_fields__, "kv_cache"})
KEYS = ("role", "content", "type", "text", "name", "tool_calls", "function", "arguments")
PARTS = st.recursive(
    st.sampled_from(["user", "assistant", "tool", "text", "{}", None, 3]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=12,
)


def encoded(fields: object) -> bytes:
    return msgspec.json.encode(fields)


def outcome(read: Callable[[], Any]) -> tuple[Any, str]:
    """What `read` gives and "", or None and the first name of the field that was refused."""
    try:
        return read(), ""
    except RequestError as refused:
        return None, re.split(r"[\[.]", refused.field)[0]


@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4))
def test_any_fields_are_read_or_refused_by_name(fields: dict[str, Any]) -> None:
    for read, needed in ((read_chat, {"messages": MESSAGES}), (read_text, {"prompt": "hi"})):
        try:
            body = encoded({**needed, **fields})
        except OverflowError:  # a number no encoder of ours writes
            return
        ask, refused = outcome(lambda read=read, body=body: read(body, DEFAULTS))
        assert refused in {*fields, *needed, "body", ""}
        if ask is not None:
            assert isinstance(ask.sampling(DEFAULTS, 9), Sampling)
            assert 1 <= ask.choices <= 16


@given(st.lists(st.dictionaries(st.sampled_from(KEYS), PARTS), min_size=1, max_size=3))
def test_any_messages_become_tokens_or_are_refused_by_place(messages: list[Any]) -> None:
    ask = read_chat(encoded({"messages": messages}), DEFAULTS)
    tokens, refused = outcome(lambda: chat_tokens(TOKENIZER, ask))
    assert refused in {"messages", ""}
    assert refused or tokens
    assert all(0 <= token < 400 for token in tokens or ())


@given(JSON)
def test_any_prompt_becomes_tokens_or_is_refused(prompt: Any) -> None:
    def tokens() -> list[tuple[int, ...]]:
        ask = read_text(body, DEFAULTS)
        return [text_tokens(TOKENIZER, one, 400) for one in ask.prompts]

    try:
        body = encoded({"prompt": prompt})
    except OverflowError:  # a number no encoder of ours writes
        return
    found, refused = outcome(tokens)
    assert refused in {"prompt", "body", ""}
    assert refused or all(found)


def test_zero_is_a_value_and_null_is_none() -> None:
    zeros = read_chat(
        encoded({"messages": MESSAGES, "temperature": 0, "top_p": 0, "top_k": 0, "seed": 0}),
        DEFAULTS,
    ).sampling(DEFAULTS, 9)
    assert (zeros.temperature, zeros.top_p, zeros.top_k, zeros.seed) == (0, 0, 0, 0)
    nulls = dict.fromkeys(("temperature", "top_p", "top_k", "seed"))
    absent = read_chat(encoded({"messages": MESSAGES, **nulls}), DEFAULTS).sampling(DEFAULTS, 9)
    assert (absent.temperature, absent.top_p, absent.top_k) == (0.7, 0.9, 40)


def test_answers_without_a_seed_have_different_ones() -> None:
    ask = read_chat(encoded({"messages": MESSAGES}), DEFAULTS)
    assert len({ask.sampling(DEFAULTS, 9).seed for _ in range(8)}) == 8


def test_top_k_minus_one_switches_it_off() -> None:
    ask = read_chat(encoded({"messages": MESSAGES, "top_k": -1}), DEFAULTS)
    assert ask.sampling(DEFAULTS, 9).top_k == 0


@pytest.mark.parametrize("number", [2**63, 2**64, 10**30])
def test_numbers_beyond_what_a_machine_holds_are_refused_by_name(number: int) -> None:
    body = b'{"messages": [{"role": "user", "content": "hi"}], "seed": %d}' % number
    with pytest.raises(RequestError) as caught:
        read_chat(body, DEFAULTS)
    assert caught.value.field == "seed"
