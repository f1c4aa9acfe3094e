"""Text completions of the packaged kind of model, through the gateway: a real model, small."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.conftest import Got, Running, Stage
from kv.small_model import Served, make_network, make_tokenizer, serving
from thinkonce import settings as known
from thinkonce.kv.weights.model import Model, load

PATH = "/v1/completions"
BODY: dict[str, Any] = {"model": "tiny", "prompt": "The quick brown", "temperature": 0, "n": 2}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder: Path = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = make_tokenizer()
    make_network(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return load(str(folder))


@pytest.fixture
def served(model: Model) -> Iterator[Served]:
    with serving(model) as running:
        yield running


@pytest.fixture
async def local(served: Served, stage: Stage) -> Running:
    pool = known.Upstream(urls=[served.url], ask_usage=True)
    return await stage.gateway(upstreams={"main": pool})


async def ending(gateway: Running) -> dict[str, Any]:
    """`BODY` with a stop text that this model's answer runs into: an answer that is kept."""
    cut = await gateway.post(PATH, BODY)
    assert cut.json["kv_cache"]["not_stored"] == "length"
    return BODY | {"stop": [cut.json["choices"][0]["text"][4:7]]}


def texts(got: Got) -> list[str]:
    said = ["", ""]
    for event in got.events[:-1]:
        for choice in event["choices"]:
            said[choice["index"]] += choice["text"]
    return said


async def test_an_answer_is_made_once_for_both_shapes(served: Served, local: Running) -> None:
    body = await ending(local)
    made = served.generator.made
    miss, hit = [await local.post(PATH, body) for _ in range(2)]
    assert (miss.cache, hit.cache) == ("MISS", "HIT")
    assert hit.json["choices"] == miss.json["choices"]
    assert hit.json["usage"] == miss.json["usage"]
    once = served.generator.made
    streamed = await local.post(PATH, body | {"stream": True})
    assert streamed.cache == "HIT"
    assert texts(streamed) == [choice["text"] for choice in hit.json["choices"]]
    assert made < once == served.generator.made


async def test_a_stream_is_counted_by_the_model_and_answers_for_the_whole(
    served: Served, local: Running
) -> None:
    body = await ending(local) | {"logprobs": 2}
    miss = await local.post(PATH, body | {"stream": True})
    made = served.generator.made
    again, whole = [await local.post(PATH, body | {"stream": each}) for each in (True, False)]
    assert [got.cache for got in (miss, again, whole)] == ["MISS", "HIT", "HIT"]
    assert not any("usage" in event for event in (*miss.events[:-1], *again.events[:-1]))
    assert whole.json["usage"]["prompt_tokens"] == 3
    assert whole.json["usage"].get("estimated") is None
    assert texts(miss) == texts(again) == [choice["text"] for choice in whole.json["choices"]]
    logs = whole.json["choices"][0]["logprobs"]
    assert len(logs["tokens"]) == len(logs["token_logprobs"]) == len(logs["top_logprobs"]) > 1
    assert served.generator.made == made


async def test_what_the_model_refuses_passes_unchanged(served: Served, local: Running) -> None:
    for _ in range(2):
        got = await local.post(PATH, BODY | {"prompt": [["x"]]})
        assert (got.status, got.cache, got.json["error"]["param"]) == (400, "MISS", "prompt[0]")
