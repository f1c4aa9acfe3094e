"""Chat completions over a socket, as the official client sees them."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from openai import APIStatusError, BadRequestError, OpenAI
from small_model import END, Serve, Served, client_of, make_tokenizer

from thinkonce.kv.serving.intake import ModelLimits
from thinkonce.kv.weights.model import Model
from thinkonce.kv.weights.packaged import MODELS

QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]
FORCE_END: Any = {str(END): 100}


def chat(client: OpenAI, **fields: Any) -> Any:
    given = {"model": "tiny", "messages": QUESTION, "temperature": 0, "max_tokens": 24}
    return client.chat.completions.create(**{**given, **fields})


def reference(model: Model, messages: Any, max_tokens: int) -> str:
    """What transformers' own greedy generation says."""
    prompt = model.tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.inference_mode():
        output = model.network.generate(**prompt, do_sample=False, max_new_tokens=max_tokens)
    made = output[0, prompt["input_ids"].shape[1] :]
    return str(model.tokenizer.decode(made, skip_special_tokens=True))


def streamed(client: OpenAI, **fields: Any) -> tuple[str, list[Any]]:
    chunks = list(chat(client, stream=True, **fields))
    deltas = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    return "".join(deltas), chunks


def test_an_answer_is_what_transformers_generates_greedily(client: OpenAI, model: Model) -> None:
    answer = chat(client)
    expected = reference(model, QUESTION, 24).removesuffix("\ufffd")
    assert answer.choices[0].message.content == expected
    assert answer.choices[0].finish_reason == "length"
    assert answer.object == "chat.completion"
    assert answer.model == "tiny"


def test_usage_counts_the_rendered_prompt_and_what_was_made(client: OpenAI, model: Model) -> None:
    text = model.tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, tokenize=False)
    prompt = len(model.tokenizer(text, add_special_tokens=False)["input_ids"])
    usage = chat(client).usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (prompt, 24)
    assert usage.total_tokens == prompt + 24
    assert usage.prompt_tokens_details.cached_tokens == 0


def test_a_stream_says_the_same_as_the_whole(client: OpenAI) -> None:
    text, chunks = streamed(client)
    assert text == chat(client).choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks][-1] == "length"
    assert len({chunk.id for chunk in chunks}) == 1, "one answer has one id"
    assert len(chunks) > 5, "text goes out while it is made, not in one piece at the end"


def test_a_stream_carries_usage_only_where_it_was_asked_for(client: OpenAI) -> None:
    _, without = streamed(client)
    assert all("usage" not in chunk.model_fields_set for chunk in without)
    _, chunks = streamed(client, stream_options={"include_usage": True})
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 24


def test_an_end_token_ends_the_answer_and_is_not_shown(client: OpenAI) -> None:
    answer = chat(client, logit_bias=FORCE_END)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.content == ""
    assert answer.usage.completion_tokens == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_text_ends_the_answer_before_it(client: OpenAI, stream: bool) -> None:
    choice = chat(client, logprobs=True).choices[0]
    whole, tokens = choice.message.content, [token.token for token in choice.logprobs.content]
    border = next(
        (one[-1] + other[0])
        for one, other in itertools.pairwise(tokens[4:])
        if "\ufffd" not in one + other
    )
    at = whole.find(border)
    if stream:
        text, chunks = streamed(client, stop=[border])
        reason = chunks[-1].choices[0].finish_reason
    else:
        choice = chat(client, stop=border).choices[0]
        text, reason = choice.message.content, choice.finish_reason
    assert text == whole[:at]
    assert reason == "stop"


def test_the_same_seed_gives_the_same_answer_and_another_seed_another(client: OpenAI) -> None:
    def text(seed: int) -> str:
        return str(chat(client, seed=seed, temperature=1.5).choices[0].message.content)

    assert text(1) == text(1)
    assert len({text(seed) for seed in range(1, 6)}) > 1


def test_choices_come_with_their_index_and_differ(client: OpenAI) -> None:
    answer = chat(client, n=3, temperature=1.5, seed=5)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) > 1
    assert answer.usage.completion_tokens == 72
    chunks = list(chat(client, n=3, temperature=1.5, seed=5, stream=True))
    for choice in answer.choices:
        mine = [c.choices[0] for c in chunks if c.choices[0].index == choice.index]
        assert "".join(part.delta.content or "" for part in mine) == choice.message.content


def test_log_probabilities_name_each_token_and_its_rivals(client: OpenAI) -> None:
    choice = chat(client, logprobs=True, top_logprobs=3).choices[0]
    tokens = choice.logprobs.content
    assert len(tokens) == 24
    raw = b"".join(bytes(token.bytes) for token in tokens)
    assert raw.decode("utf-8", errors="replace").removesuffix("\ufffd") == choice.message.content
    for token in tokens:
        assert len(token.top_logprobs) == 3
        assert token.logprob == token.top_logprobs[0].logprob, "greedy takes the likeliest"
        assert token.logprob <= 0


def test_log_probabilities_of_a_stream_are_those_of_the_whole(client: OpenAI) -> None:
    whole = chat(client, logprobs=True).choices[0].logprobs.content
    chunks = list(chat(client, logprobs=True, stream=True))
    logs = [c.choices[0].logprobs.content for c in chunks if c.choices[0].logprobs]
    assert [token for log in logs for token in log] == whole


def test_a_frequency_penalty_spreads_the_tokens(client: OpenAI) -> None:
    def distinct(**fields: Any) -> int:
        tokens = chat(client, logprobs=True, max_tokens=64, **fields).choices[0].logprobs.content
        return len({tuple(token.bytes) for token in tokens})

    biased = {str(300): 30}
    repeated = distinct(logit_bias=biased)
    assert distinct(logit_bias=biased, frequency_penalty=2) > repeated


def test_max_completion_tokens_takes_precedence(client: OpenAI) -> None:
    assert chat(client, max_completion_tokens=3).usage.completion_tokens == 3


def test_text_parts_are_read_and_developer_is_the_system_message(client: OpenAI) -> None:
    plain: Any = [{"role": "system", "content": "a\nb"}, *QUESTION]
    parts: Any = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    same = chat(client, messages=[{"role": "developer", "content": parts}, *QUESTION])
    assert (
        same.choices[0].message.content == chat(client, messages=plain).choices[0].message.content
    )


def test_a_prompt_longer_than_the_context_is_refused_with_openai_s_code(client: OpenAI) -> None:
    long: Any = [{"role": "user", "content": "\u00a7" * 2100}]
    with pytest.raises(BadRequestError) as caught:
        chat(client, messages=long)
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.param == "messages"
    with pytest.raises(BadRequestError) as caught:
        chat(client, max_tokens=2040)
    assert caught.value.code == "context_length_exceeded"


def test_an_answer_without_a_bound_gets_the_server_s_default(serve: Serve) -> None:
    with client_of(serve(limits=ModelLimits(default_max_tokens=7))) as client:
        answer = client.chat.completions.create(model="tiny", messages=QUESTION, temperature=0)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 7
    assert answer.choices[0].finish_reason == "length"


def test_what_the_model_s_own_settings_say_is_the_default(serve: Serve, model: Model) -> None:
    with client_of(serve(replace(model, temperature=0.0))) as client:
        texts = {
            client.chat.completions.create(model="tiny", messages=QUESTION, max_tokens=8)
            .choices[0]
            .message.content
            for _ in range(3)
        }
    assert len(texts) == 1, "temperature 0 is a value, not an absent one"
    assert MODELS[0].temperature > 0


def test_tools_are_refused_where_the_template_has_no_place_for_them(client: OpenAI) -> None:
    tools: Any = [{"type": "function", "function": {"name": "now", "parameters": {}}}]
    with pytest.raises(BadRequestError) as caught:
        chat(client, tools=tools)
    assert caught.value.param == "tools"
    assert chat(client, tools=tools, tool_choice="none").usage.completion_tokens == 24


def test_tools_reach_a_template_that_has_a_place_for_them(serve: Serve, model: Model) -> None:
    template = (
        "{{ tools | tojson }}{% for m in messages %}{{ m.content }}"
        "{% for c in m.tool_calls or [] %}{{ c.function.arguments.zone }}{% endfor %}{% endfor %}"
    )
    with_tools = replace(model, tokenizer=make_tokenizer(template))
    tools: Any = [{"type": "function", "function": {"name": "now", "parameters": {}}}]
    call = {"name": "now", "arguments": '{"zone": "utc"}'}
    calls = [{"id": "c1", "type": "function", "function": call}]
    messages: Any = [
        *QUESTION,
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": "12:00"},
    ]
    served = serve(with_tools)
    with client_of(served) as client:
        chat(client, messages=messages, tools=tools, max_tokens=1)
    prompt = with_tools.tokenizer.decode(served.generator.begun[0])
    assert prompt.startswith(json.dumps(tools))
    assert prompt.endswith("utc12:00"), "arguments reach the template as an object"


def test_a_model_without_a_chat_template_says_so(serve: Serve, model: Model) -> None:
    bare = replace(model, tokenizer=make_tokenizer(template=None))
    with client_of(serve(bare)) as client, pytest.raises(BadRequestError, match="no chat template"):
        chat(client)


def test_an_unknown_model_is_not_found_and_the_known_one_is_named(client: OpenAI) -> None:
    with pytest.raises(APIStatusError) as caught:
        chat(client, model="gpt-9")
    assert caught.value.status_code == 404
    assert caught.value.code == "model_not_found"
    assert "tiny" in caught.value.message


def test_the_model_is_listed_and_shown(client: OpenAI, served: Served) -> None:
    listed = client.models.list().data
    assert [card.id for card in listed] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "thinkonce"
    assert served.generator.begun == [], "looking costs no model time"
