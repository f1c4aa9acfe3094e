"""Plain completions over a socket, as the official client sees them."""

from __future__ import annotations

from typing import Any

import pytest
from openai import BadRequestError, OpenAI
from small_model import END

from thinkonce.kv.weights.model import Model

PROMPT = "The quick brown"


def complete(client: OpenAI, **fields: Any) -> Any:
    given = {"model": "tiny", "prompt": PROMPT, "temperature": 0, "max_tokens": 12}
    return client.completions.create(**{**given, **fields})


def test_a_prompt_of_token_ids_is_the_same_prompt(client: OpenAI, model: Model) -> None:
    ids = model.tokenizer(PROMPT)["input_ids"]
    assert complete(client, prompt=ids).choices[0].text == complete(client).choices[0].text


def test_several_prompts_are_answered_each_with_its_choices(client: OpenAI) -> None:
    answer = complete(client, prompt=[PROMPT, "What is"], n=2)
    texts = [choice.text for choice in answer.choices]
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert texts[0] == texts[1] == complete(client).choices[0].text
    assert texts[2] == complete(client, prompt="What is").choices[0].text
    assert answer.usage.completion_tokens == 48


def test_the_bound_is_sixteen_tokens_where_none_is_given(client: OpenAI) -> None:
    answer = complete(client, max_tokens=None)
    assert answer.usage.completion_tokens == 16
    assert answer.choices[0].finish_reason == "length"


def test_a_stream_says_the_same_as_the_whole_and_echoes_the_prompt(client: OpenAI) -> None:
    whole = complete(client, echo=True).choices[0].text
    chunks = list(complete(client, echo=True, stream=True))
    assert whole.startswith(PROMPT)
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole
    assert chunks[-1].choices[0].finish_reason == "length"


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_come_in_the_older_form(client: OpenAI, stream: bool) -> None:
    if stream:
        chunks = list(complete(client, logprobs=2, stream=True))
        parts = [c.choices[0].logprobs for c in chunks if c.choices[0].logprobs]
    else:
        parts = [complete(client, logprobs=2).choices[0].logprobs]
    tokens = [token for part in parts for token in part.tokens]
    offsets = [offset for part in parts for offset in part.text_offset]
    rivals = [top for part in parts for top in part.top_logprobs]
    assert len(tokens) == len(offsets) == len(rivals) == 12
    assert offsets == [sum(map(len, tokens[:place])) for place in range(12)]
    assert all(1 <= len(top) <= 2 for top in rivals)


def test_an_empty_prompt_begins_where_a_text_begins(client: OpenAI, model: Model) -> None:
    bos = [model.tokenizer.bos_token_id]
    assert (
        complete(client, prompt="").choices[0].text == complete(client, prompt=bos).choices[0].text
    )


def test_an_end_token_ends_the_text(client: OpenAI) -> None:
    choice = complete(client, logit_bias={str(END): 100}).choices[0]
    assert (choice.text, choice.finish_reason) == ("", "stop")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [PROMPT, 3]}, "prompt[1]"),
        ({"prompt": [[1, -1]]}, "prompt[0]"),
        ({"prompt": [999_999]}, "prompt"),
        ({"prompt": ["a"] * 20}, "prompt"),
        ({"suffix": "end"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"echo": True, "logprobs": 1}, "echo"),
        ({"max_tokens": 2048}, "prompt"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
    client: OpenAI, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(BadRequestError) as caught:
        complete(client, **fields)
    assert caught.value.param == param
