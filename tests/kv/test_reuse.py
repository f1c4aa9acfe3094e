"""The model server reads each prefix once: what clients are told, and who shares with whom."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from openai import BadRequestError, OpenAI
from prometheus_client.parser import text_string_to_metric_families
from small_model import Serve, Served, client_of, make_tokenizer, serving
from transformers import GPT2Config, GPT2LMHeadModel

from thinkonce.cli import main
from thinkonce.errors import ConfigError
from thinkonce.kv.engine import open_engine
from thinkonce.kv.generation.support import fingerprint_of, unsupported
from thinkonce.kv.weights.model import Model
from thinkonce.settings import Kv

CHUNK = 64
SECRET = "s" * 64
DOCUMENT = "The quick brown fox jumps over the lazy dog, 一个模型应该只思考一次。 " * 8


def ask(client: OpenAI, question: str, **fields: Any) -> Any:
    messages: Any = [
        {"role": "system", "content": DOCUMENT},
        {"role": "user", "content": question},
    ]
    return client.chat.completions.create(
        model="tiny", messages=messages, temperature=0, max_tokens=8, **fields
    )


def stats(served: Served) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{served.url}/kv/stats").json()
    return found


def cached(answer: Any) -> int:
    return int(answer.usage.prompt_tokens_details.cached_tokens)


def test_a_shared_beginning_is_read_once_and_told_in_usage(served: Served, client: OpenAI) -> None:
    first, second = ask(client, "Who jumps?"), ask(client, "Over what?")
    assert cached(first) == 0
    usage = second.usage
    assert cached(second) > 0
    assert cached(second) % CHUNK == 0
    assert cached(second) < usage.prompt_tokens
    assert usage.prompt_cache_hit_tokens == cached(second)
    assert usage.prompt_cache_miss_tokens == usage.prompt_tokens - cached(second)
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_answers_are_the_same_with_and_without_reuse(serve: Serve) -> None:
    remembering, anew = serve(), serve(kv=Kv(reuse=False))
    with client_of(remembering) as with_it, client_of(anew) as without:
        for question in ("Who jumps?", "Over what?", "Who jumps?"):
            answers = [ask(client, question) for client in (with_it, without)]
            texts = [answer.choices[0].message.content for answer in answers]
            assert texts[0] == texts[1]
        assert cached(answers[0]) > 0
        assert cached(answers[1]) == 0
    told = stats(anew)
    assert (told["reuse"], told["why"]) == (False, "`kv.reuse` is false")


def test_a_stream_tells_it_in_its_usage_chunk(client: OpenAI) -> None:
    ask(client, "Who jumps?")
    options: Any = {"include_usage": True}
    chunks = list(ask(client, "Over what?", stream=True, stream_options=options))
    assert cached(chunks[-1]) > 0


def test_two_credentials_share_nothing(served: Served, client: OpenAI) -> None:
    ask(client, "Who jumps?")
    for key in ("another", "a third"):
        assert cached(ask(client.with_options(api_key=key), "Who jumps?")) == 0
    assert cached(ask(client.with_options(api_key="another"), "Who jumps?")) > 0


@pytest.mark.parametrize("name", ["prompt_cache_key", "namespace", "cache_key"])
def test_prompts_under_another_name_are_kept_apart(client: OpenAI, name: str) -> None:
    def named(value: str) -> dict[str, Any]:
        return {name: value} if name == "prompt_cache_key" else {"kv_cache": {name: value}}

    ask(client, "Who jumps?")
    assert cached(ask(client, "Who jumps?", extra_body=named("one"))) == 0
    assert cached(ask(client, "Who jumps?", extra_body=named("one"))) > 0
    assert cached(ask(client, "Who jumps?", extra_body=named("two"))) == 0
    assert cached(ask(client, "Who jumps?")) > 0


def test_who_wants_nothing_kept_leaves_and_loads_nothing(served: Served, client: OpenAI) -> None:
    off = {"kv_cache": {"enabled": False}}
    answer = ask(client, "Who jumps?", extra_body=off)
    assert stats(served)["memory"]["blocks"] == 0
    assert cached(ask(client, "Who jumps?")) == 0
    again = ask(client, "Who jumps?", extra_body=off)
    assert cached(again) == 0
    assert again.choices[0].message.content == answer.choices[0].message.content


def test_a_refresh_reads_anew_what_is_known(served: Served, client: OpenAI) -> None:
    fresh = {"kv_cache": {"refresh": True}}
    assert [cached(ask(client, "Who jumps?", extra_body=fresh)) for _ in range(2)] == [0, 0]
    assert cached(ask(client, "Who jumps?")) > 0


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"lifetime": 60}, "kv_cache.lifetime: got 60; it accepts one of enabled, refresh"),
        ({"ttl": "2h"}, "kv_cache.ttl: got '2h'; it accepts 5m, 1h, 24h"),
        ({"ttl": 0}, "kv_cache.ttl"),
        ({"priority": "urgent"}, "kv_cache.priority: got 'urgent'; it accepts low, medium"),
        ({"reuse": "lnk"}, "kv_cache.reuse: got 'lnk'; it accepts exact, link"),
        ({"tags": "v1"}, "kv_cache.tags: got 'v1'; it accepts array"),
        ({"tags": ["n" * 257]}, "kv_cache.tags"),
        ({"arguments": {"name": 5}}, "kv_cache.arguments[...]: got {'name': 5}; it accepts str"),
        ({"enabled": "no"}, "kv_cache.enabled: got 'no'; it accepts bool"),
        ({"namespace": "n" * 1025}, "kv_cache.namespace"),
        ("off", "kv_cache: got 'off'; it accepts object"),
    ],
)
def test_controls_that_are_not_known_are_named(client: OpenAI, given: Any, named: str) -> None:
    with pytest.raises(BadRequestError, match=re.escape(named)):
        ask(client, "Who jumps?", extra_body={"kv_cache": given})


def test_metrics_tell_what_was_read_and_what_was_loaded(model: Model, tmp_path: Path) -> None:
    kept = Kv(chunk=CHUNK, store=str(tmp_path / "kv"))
    with serving(model, kv=kept) as served, client_of(served) as client:
        usage = [ask(client, "Who jumps?").usage for _ in range(2)]
        assert served.engine.disk is not None
        assert served.engine.disk.flush(20)
        page = httpx.get(f"{served.url}/metrics")
        told = stats(served)
    assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {
        sample.name + str(sample.labels.get("tier", "")): sample.value
        for family in text_string_to_metric_families(page.text)
        for sample in family.samples
    }
    assert found["thinkonce_kv_prompts_total"] == 2
    assert found["thinkonce_kv_prompt_tokens_total"] == sum(one.prompt_tokens for one in usage)
    assert found["thinkonce_kv_cached_tokens_totalmemory"] == usage[1].prompt_cache_hit_tokens > 0
    assert found["thinkonce_kv_cached_tokens_totaldisk"] == 0
    for tier in ("memory", "disk"):
        assert found[f"thinkonce_kv_blocks{tier}"] == told[tier]["blocks"] > 0
        assert found[f"thinkonce_kv_max_bytes{tier}"] == told[tier]["max_bytes"]
    assert found["thinkonce_kv_prefill_seconds_count"] == told["prefill"]["count"] > 0
    line = ("waiting", "running", "line_refused_total", "line_late_total")
    assert {found[f"thinkonce_{name}"] for name in line} == {0}
    assert found["thinkonce_max_waiting"] == served.scheduler.max_waiting
    assert found["thinkonce_model_alive"] == 1


def test_the_command_line_tells_it_by_tier(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = Kv(chunk=CHUNK, store=str(tmp_path / "kv"))
    with serving(model, kv=kept) as served, client_of(served) as client:
        for _ in range(2):
            ask(client, "Who jumps?")
        assert main(["kv", "stats", "--url", served.url]) == 0
        said = capsys.readouterr().out
        assert main(["kv", "stats", "--url", served.url, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
    assert f"{told['cached_tokens']:,} (" in said
    assert [line.split()[0] for line in said.splitlines()[-2:]] == ["memory", "disk"]
    assert main(["kv", "stats", "--url", served.url]) == 1
    assert "cannot be reached" in capsys.readouterr().err


def test_metrics_of_a_model_that_keeps_nothing_are_its_line(serve: Serve) -> None:
    page = httpx.get(f"{serve(kv=Kv(reuse=False)).url}/metrics").text
    assert "thinkonce_waiting 0.0" in page
    assert "thinkonce_kv_blocks{" not in page


def test_a_restart_finds_what_was_read_before(model: Model, tmp_path: Path) -> None:
    kept = Kv(chunk=CHUNK, store=str(tmp_path / "kv"))
    with serving(model, kv=kept) as first, client_of(first) as client:
        answer = ask(client, "Who jumps?")
    with serving(model, kv=kept) as second, client_of(second) as client:
        again = ask(client, "Who jumps?")
        assert cached(again) > 0
        assert again.choices[0].message.content == answer.choices[0].message.content
        assert cached(ask(client.with_options(api_key="another"), "Who jumps?")) == 0
        disk = stats(second)["disk"]
    assert disk["tokens_loaded"] == cached(again)
    assert (disk["damaged"], disk["failures"], disk["dropped"]) == (0, 0, 0)


def test_two_requests_at_once_read_what_they_share_once(serve: Serve) -> None:
    served = serve()
    served.generator.gate.clear()
    answers: list[Any] = []
    with client_of(served) as client:
        threads = [
            threading.Thread(target=lambda q=question: answers.append(ask(client, q)))
            for question in ("Who jumps?", "Over what?", "Why?")
        ]
        for thread in threads:
            thread.start()
        assert served.scheduler.wait_until(lambda line: line.running == 1 and line.waiting == 2, 30)
        served.generator.gate.set()
        for thread in threads:
            thread.join()
    assert sorted(map(cached, answers))[0] == 0
    told = stats(served)
    shared = sorted(map(cached, answers))[1]
    assert shared > 0
    assert told["cached_tokens"] == sum(map(cached, answers))
    assert told["blocks_added"] <= shared // CHUNK + 3, "what they share was computed once"


def test_stats_tell_what_lies_in_memory(served: Served, client: OpenAI) -> None:
    before = stats(served)
    answer = ask(client, "Who jumps?")
    told = stats(served)
    assert (before["reuse"], before["prompts"]) == (True, 0)
    assert told["prompts"] == 1
    assert told["prompt_tokens"] == answer.usage.prompt_tokens
    assert told["memory"]["tokens"] == answer.usage.prompt_tokens // CHUNK * CHUNK
    assert told["memory"]["bytes"] == told["memory"]["tokens"] * told["bytes_a_token"]
    assert told["memory"]["max_bytes"] == Kv().memory
    assert DOCUMENT[:9] not in str(told)


def test_a_budget_is_kept_and_the_answers_stay_right(serve: Serve, model: Model) -> None:
    block = stats(serve())["bytes_a_token"] * CHUNK
    room = 512 * stats(serve())["bytes_a_token"]  # of one sequence: the prompt and its answer
    small = serve(kv=Kv(chunk=CHUNK, memory=room + 2 * block))
    with client_of(small) as client:
        first = ask(client, "Who jumps?")
        again = ask(client, "Who jumps?")
    assert first.choices[0].message.content == again.choices[0].message.content
    assert cached(again) == 2 * CHUNK
    assert stats(small)["memory"]["bytes"] == 2 * block
    with pytest.raises(ConfigError, match=f"{block} bytes or more"):
        open_engine(model, Kv(chunk=CHUNK, memory=block - 1))


# -- behind a gateway ----------------------------------------------------------------------------


def as_gateway(client: OpenAI, tenant: str, secret: str = SECRET) -> OpenAI:
    headers = {"x-thinkonce-engine-secret": secret, "x-thinkonce-tenant": tenant}
    return client.with_options(default_headers=headers)


def test_a_gateway_names_the_tenant_whatever_the_credential(serve: Serve) -> None:
    with client_of(serve(secret=SECRET)) as client:
        ask(as_gateway(client, "alice"), "Who jumps?")
        other = client.with_options(api_key="another")
        assert cached(ask(as_gateway(other, "alice"), "Who jumps?")) > 0
        assert cached(ask(as_gateway(client, "bob"), "Who jumps?")) == 0


def test_what_comes_without_a_tenant_shares_with_nobody(serve: Serve) -> None:
    with client_of(serve(secret=SECRET)) as client:
        for asker in (client, client, as_gateway(client, ""), as_gateway(client, "")):
            assert cached(ask(asker, "Who jumps?")) == 0


@pytest.mark.parametrize("secret", ["", SECRET])
def test_nobody_else_may_name_a_tenant(serve: Serve, secret: str) -> None:
    with client_of(serve(secret=secret)) as client:
        for given in ("guess", "", "é"):
            answer = httpx.post(
                f"{client.base_url}chat/completions",
                json={"messages": [{"role": "user", "content": "hello"}]},
                headers=[
                    (b"x-thinkonce-tenant", b"alice"),
                    (b"x-thinkonce-engine-secret", given.encode()),
                ],
            )
            assert answer.status_code == 403
            assert "x-thinkonce-tenant" in answer.json()["error"]["message"]


def test_a_page_that_gave_its_name_this_address_is_refused(serve: Serve) -> None:
    asked = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
    url = f"{serve().url}/v1/chat/completions"
    page = {"host": "evil.example"}
    refused = httpx.post(url, json=asked, headers=page)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")
    known = {"authorization": "Bearer sk-mine"}
    for headers in (page | known, {"host": "localhost:8001"}, {}):
        assert httpx.post(url, json=asked, headers=headers, timeout=30).status_code == 200


# -- models that are not reused, and what tells two apart ----------------------------------------


@pytest.fixture
def gpt2(model: Model) -> Model:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=model.vocabulary, n_positions=512, n_embd=16, n_layer=1, n_head=2,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return replace(model, network=GPT2LMHeadModel(config).eval(), context_tokens=512)


def test_an_unknown_architecture_is_served_without_reuse_and_says_so(
    serve: Serve, gpt2: Model, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="thinkonce.kv"):
        served = serve(gpt2)
    assert "not reused: architecture 'gpt2' is not one of llama" in caplog.text
    with client_of(served) as client:
        answers = [ask(client, "Who jumps?") for _ in range(2)]
    assert answers[0].choices[0].message.content == answers[1].choices[0].message.content
    assert [cached(answer) for answer in answers] == [0, 0]
    assert stats(served)["reuse"] is False


@pytest.fixture
def config(model: Model) -> Iterator[Any]:
    """The model's own, to be changed by a test."""
    was = dict(model.network.config.__dict__)
    yield model.network.config
    model.network.config.__dict__.clear()
    model.network.config.__dict__.update(was)


@pytest.mark.parametrize(
    "rope", [{"rope_type": "dynamic"}, {"full_attention": {"rope_type": "longrope"}}]
)
def test_rotations_that_depend_on_the_prompt_s_length_are_not_reused(
    model: Model, config: Any, rope: dict[str, Any]
) -> None:
    assert unsupported(model.network) is None
    config.rope_parameters = rope
    assert "depends on the length of the prompt" in (unsupported(model.network) or "")


def test_an_attention_nobody_measured_is_not_reused(model: Model, config: Any) -> None:
    config._attn_implementation_internal = "flex_attention"
    assert unsupported(model.network) == "attention 'flex_attention' is not one of sdpa, eager"


def test_a_number_type_nobody_measured_is_not_reused(model: Model) -> None:
    half = type(model.network)(model.network.config).half().eval()
    assert unsupported(half) == "torch.float16 on cpu has not been shown to give equal bits"
    assert unsupported(half.bfloat16()) is None


def test_weights_changed_under_the_same_name_are_another_model(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(chunk: int = CHUNK) -> Any:
        return fingerprint_of(model.network, model.tokenizer, chunk)

    before = found()
    assert found() == before
    weight = model.network.model.layers[0].mlp.up_proj.weight
    with torch.no_grad():
        was = weight[3, 5].item()
        weight[3, 5] = was + 1e-3
        assert before.differences(found()) == ("weights",)
        weight[3, 5] = was
    assert before.differences(found(128)) == ("chunk_tokens",)
    monkeypatch.setenv("TRANSFORMERS_SDPA_FORCE_GQA", "1")
    assert before.differences(found()) == ("attention",)
    monkeypatch.undo()
    other = make_tokenizer("{{ messages }}")
    assert before.differences(fingerprint_of(model.network, other, CHUNK)) == ("tokenizer",)
