"""Anthropic's messages over a socket, as its official client sees them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from anthropic import Anthropic, APIStatusError, AsyncAnthropic, BadRequestError
from openai import OpenAI
from small_model import CONTEXT, Serve, Served, make_tokenizer

from thinkonce.kv.weights.model import Model
from thinkonce.settings import Kv

TEXT = "The quick brown fox jumps over the lazy dog. " * 12
MARKED = {"type": "text", "text": TEXT, "cache_control": {"type": "ephemeral"}}
QUESTION: Any = [{"role": "user", "content": "Who jumps?"}]


@pytest.fixture
def claude(served: Served) -> Iterator[Anthropic]:
    with Anthropic(base_url=served.url, api_key="none", max_retries=0, timeout=60) as client:
        yield client


def ask(client: Anthropic, **fields: Any) -> Any:
    given = {"model": "tiny", "messages": QUESTION, "max_tokens": 12}
    body = {"temperature": 0, **fields.pop("extra_body", {})}
    return client.messages.create(**{**given, **fields}, extra_body=body)


def test_an_answer_is_the_one_that_openai_s_clients_get(claude: Anthropic, client: OpenAI) -> None:
    answer = ask(claude, system="Be brief.", messages=QUESTION)
    messages: Any = [{"role": "system", "content": "Be brief."}, *QUESTION]
    other = client.chat.completions.create(
        model="tiny", messages=messages, temperature=0, max_tokens=12
    )
    assert answer.content[0].text == other.choices[0].message.content
    assert answer.role == "assistant"
    assert answer.stop_reason == "max_tokens"
    assert other.usage is not None
    assert answer.usage.output_tokens == other.usage.completion_tokens == 12
    assert answer.usage.input_tokens == other.usage.prompt_tokens


@pytest.mark.parametrize(("ttl", "field"), [("5m", "5m"), ("1h", "1h"), ("24h", "1h")])
def test_usage_tells_what_was_written_and_read_as_anthropic_counts_it(
    claude: Anthropic, ttl: str, field: str
) -> None:
    control = {"type": "ephemeral", "ttl": ttl}
    system: Any = [{**MARKED, "cache_control": control}]
    first, second = (ask(claude, system=system).usage for _ in range(2))
    written = first.cache_creation_input_tokens
    assert written > 0
    assert written % 64 == 0
    assert first.cache_read_input_tokens == 0
    assert getattr(first.cache_creation, f"ephemeral_{field}_input_tokens") == written
    assert second.cache_read_input_tokens > 0
    totals = [
        u.input_tokens + u.cache_creation_input_tokens + u.cache_read_input_tokens
        for u in (first, second)
    ]
    assert totals[0] == totals[1]


def test_what_finds_no_room_was_not_written(
    served: Served, claude: Anthropic, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert served.engine.reusing is not None
    keeping = served.engine.reusing.keeping
    kept, most = keeping.keep, 1

    def first_ones(slab: Any, start: int, hold: Any, chain: Any, place: int) -> bool:
        return place < most and kept(slab, start, hold, chain, place)

    monkeypatch.setattr(keeping, "keep", first_ones)
    usage = ask(claude, system=[MARKED]).usage
    assert usage.cache_creation_input_tokens == 64, "a block of several"
    assert usage.input_tokens > 64
    assert ask(claude, system=[MARKED]).usage.cache_read_input_tokens == 64


def test_with_a_full_budget_nothing_was_written(serve: Serve, served: Served) -> None:
    assert served.engine.reusing is not None
    token = served.engine.reusing.keeping.shape.bytes_a_token
    full = serve(kv=Kv(chunk=64, memory=256 * token))  # the prompt and its answer take it all
    with Anthropic(base_url=full.url, api_key="none", max_retries=0, timeout=60) as client:
        first, again = (ask(client, system=[MARKED]).usage for _ in range(2))
    assert first.cache_creation_input_tokens == again.cache_creation_input_tokens == 0
    assert first.input_tokens == again.input_tokens > 64


def test_chunks_are_written_once_wherever_they_stand(claude: Anthropic) -> None:
    parts = [
        {"type": "text", "text": f"Document {n}. {TEXT}", "kv_cache": {"id": str(n)}}
        for n in range(3)
    ]
    link = {"kv_cache": {"reuse": "link"}}

    def usage(*places: int) -> Any:
        asked: Any = [
            {
                "role": "user",
                "content": [*(parts[n] for n in places), {"type": "text", "text": "Who jumps?"}],
            }
        ]
        return ask(claude, messages=asked, extra_body=link).usage

    first, again, more = usage(0, 1), usage(1, 0), usage(2, 0)
    assert first.cache_creation_input_tokens > 128
    assert again.cache_creation_input_tokens == 0
    assert 0 < more.cache_creation_input_tokens < first.cache_creation_input_tokens


def test_who_wants_nothing_kept_writes_nothing(claude: Anthropic) -> None:
    off = {"kv_cache": {"enabled": False}}
    usage = ask(claude, system=TEXT, extra_body=off).usage
    assert usage.cache_creation_input_tokens == usage.cache_read_input_tokens == 0
    assert usage.input_tokens > 64


def test_a_stream_says_what_the_whole_answer_says(claude: Anthropic) -> None:
    whole = ask(claude, system=[MARKED])
    with claude.messages.stream(
        model="tiny",
        messages=QUESTION,
        max_tokens=12,
        system=[MARKED],
        extra_body={"temperature": 0},
    ) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == final.content[0].text == whole.content[0].text  # type: ignore[union-attr]
    assert final.stop_reason == "max_tokens"
    assert final.usage.output_tokens == 12
    assert final.usage.cache_read_input_tokens


async def test_the_asynchronous_client_reads_the_stream_too(served: Served) -> None:
    async with (
        AsyncAnthropic(base_url=served.url, api_key="none", max_retries=0) as client,
        client.messages.stream(model="tiny", messages=QUESTION, max_tokens=4) as stream,
    ):
        kinds = [event.type async for event in stream]
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"


def test_a_stop_sequence_ends_the_answer_and_is_named(claude: Anthropic) -> None:
    text = ask(claude).content[0].text
    stop = text[4:6]
    answer = ask(claude, stop_sequences=["never so", stop])
    assert answer.content[0].text == text[: text.index(stop)]
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", stop)


def test_tools_and_their_results_reach_the_template(serve: Serve, model: Model) -> None:
    template = (
        "{{ tools | tojson if tools }}{% for m in messages %}{{ m.role }}:{{ m.content }}"
        "{% for c in m.tool_calls or [] %}{{ c.function.arguments.city }}{% endfor %};{% endfor %}"
    )
    served = serve(replace(model, tokenizer=make_tokenizer(template)))
    with Anthropic(base_url=served.url, api_key="none", max_retries=0) as client:
        call = {"type": "tool_use", "id": "t1", "name": "clock", "input": {"city": "Rome"}}
        result = {"type": "tool_result", "tool_use_id": "t1", "content": "noon"}
        ask(
            client,
            tools=[
                {
                    "name": "clock",
                    "input_schema": {"type": "object"},
                    "cache_control": {"type": "ephemeral"},
                }
            ],
            messages=[
                *QUESTION,
                {"role": "assistant", "content": [call]},
                {"role": "user", "content": [result, {"type": "text", "text": "So?"}]},
            ],
        )
        read = served.generator.inner
        assert read is not None
    prompt = make_tokenizer(template).decode(served.generator.begun[0])
    assert "cache_control" not in prompt
    assert '"name": "clock"' in prompt
    assert prompt.endswith("user:Who jumps?;assistant:Rome;tool:noon;user:So?;")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"max_tokens": -1}, "max_tokens"),
        ({"messages": [{"role": "system", "content": "x"}]}, r"messages\[0\].role"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "type"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking"),
        ({"extra_body": {"max_tokens": None}}, "max_tokens"),
        ({"extra_body": {"messages": 5}}, "messages"),
        ({"extra_body": {"kv_cache": {"lifetime": 1}}}, "kv_cache.lifetime"),
        ({"system": [{**MARKED, "cache_control": {"type": "forever"}}]}, "cache_control"),
        ({"max_tokens": CONTEXT}, "context"),
    ],
)
def test_errors_have_anthropic_s_shape_and_name_the_field(
    claude: Anthropic, fields: Any, named: str
) -> None:
    with pytest.raises(BadRequestError, match=named) as caught:
        ask(claude, **fields)
    body: Any = caught.value.body
    assert body["type"] == "error"
    assert body["error"]["type"] == "invalid_request_error"


def test_an_unknown_model_is_not_found(claude: Anthropic) -> None:
    with pytest.raises(APIStatusError) as caught:
        ask(claude, model="other")
    assert caught.value.status_code == 404
    body: Any = caught.value.body
    assert body["error"]["type"] == "not_found_error"
