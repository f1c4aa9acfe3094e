"""Which requests share an answer, and which never do: the list of probes every cache is put to."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from gateway import wire
from gateway.conftest import CHAT, Running, Stage, all_ways
from gateway.upstream import Out, Seen, Upstream, chunk, completion, stream
from thinkonce.request.headers import SECRETS
from thinkonce.settings import Upstream as Pool

way = all_ways


async def test_an_identical_request_is_one_call_with_fresh_id_and_the_original_usage(
    gateway: Running, upstream: Upstream
) -> None:
    first, second = await gateway.chat(), await gateway.chat()
    assert (first.cache, second.cache, upstream.calls) == ("MISS", "HIT", 1)
    assert second.text == first.text
    assert second.json["id"] != first.json["id"], "two answers never carry one id"
    assert second.json["created"] > first.json["created"]
    assert second.json["usage"] == first.json["usage"]
    assert second.headers["x-cache-source-id"] == first.json["id"]


@pytest.mark.parametrize(
    "other",
    [
        {"top_k": 5},
        {"max_tokens": 16},
        {"user": "somebody"},
        {"temperature": 0.5},
        {"tool_choice": "none"},
        {"response_format": {"type": "json_object"}},
        {"n": 2},
        {"seed": None},
        {"unknown_field": {"deep": [1]}},
        {"model": "another"},
        {"stream_options": {"include_obfuscation": False}},
    ],
    ids=lambda fields: next(iter(fields)),
)
async def test_a_field_that_can_change_the_answer_is_another_request(
    gateway: Running, upstream: Upstream, other: dict[str, Any]
) -> None:
    await gateway.chat()
    assert (await gateway.chat(**other)).cache == "MISS"
    assert upstream.calls == 2


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer sk-two"},
        {"x-api-key": "two"},
        {"openai-organization": "org-2"},
        {"openai-beta": "assistants=v2"},
    ],
    ids=lambda headers: next(iter(headers)),
)
async def test_a_header_that_can_change_the_answer_is_another_request(
    gateway: Running, upstream: Upstream, headers: dict[str, str]
) -> None:
    await gateway.chat(headers={"authorization": "Bearer sk-one"})
    again = await gateway.chat(headers={"authorization": "Bearer sk-one"} | headers)
    assert (again.cache, upstream.calls) == ("MISS", 2)


@pytest.mark.parametrize(
    "control", [{}, {"kv_cache": {"cache_key": "label", "key_mode": "override"}}]
)
async def test_the_query_of_the_url_is_sent_upstream_and_tells_requests_apart(
    gateway: Running, upstream: Upstream, control: dict[str, Any]
) -> None:
    async def script(seen: Seen, out: Out) -> None:
        await out.json(completion(seen.path))

    upstream.script = script
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]} | control
    queries = ["", "?key=A", "?key=B", "?api-version=1", "?api-version=2"]
    for expected in ("MISS", "HIT", "HIT"):  # the third time it is answered by the probe
        for query in queries:
            got = await gateway.post(CHAT + query, body)
            assert (got.cache, got.text) == (expected, CHAT + query)
    assert upstream.calls == len(queries)


@pytest.mark.parametrize(
    "headers",
    [
        {"traceparent": "00-1-2-3"},
        {"user-agent": "another"},
        {"x-stainless-retry-count": "1"},
        {"x-request-id": "mine"},
        {"x-unlisted": "is not sent upstream"},
        {"accept": "application/json"},
    ],
    ids=lambda headers: next(iter(headers)),
)
async def test_a_header_that_cannot_change_the_answer_is_the_same_request(
    gateway: Running, upstream: Upstream, headers: dict[str, str]
) -> None:
    await gateway.chat()
    assert (await gateway.chat(headers=headers)).cache == "HIT"
    assert upstream.calls == 1


@pytest.mark.parametrize("name", ["X-Region", "User-Agent", "Origin", "X-Forwarded-For", "Accept"])
async def test_a_configured_header_is_sent_upstream_and_tells_requests_apart(
    stage: Stage, name: str
) -> None:
    gateway = await stage.gateway(gateway={"forward_headers": [name]})
    await gateway.chat(headers={name: "eu"})
    assert (await gateway.chat(headers={name: "us"})).cache == "MISS"
    assert (await gateway.chat(headers={name: "eu"})).cache == "HIT"
    assert [seen.headers[name.lower()] for seen in stage.upstream.seen] == ["eu", "us"]


async def test_key_order_spaces_and_the_spelling_of_zero_do_not_count(
    gateway: Running, upstream: Upstream
) -> None:
    kind = {"content-type": "application/json"}
    bodies = [
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"temperature":0}',
        b'{ "temperature": 0.0, "messages": [ {"content":"x", "role":"user"} ], "model": "m" }',
        b'{"model":"m","messages":[{"role":"user","content":"\\u0078"}],"temperature":-0.0}',
    ]
    caches = [(await gateway.send("POST", CHAT, body, kind)).cache for body in bodies]
    assert (caches, upstream.calls) == (["MISS", "HIT", "HIT"], 1)


async def test_two_upstreams_never_share_an_answer(stage: Stage) -> None:
    other = await stage.another_upstream()
    pools = {
        "one": Pool(urls=[stage.upstream.url], models=["one-*"]),
        "two": Pool(urls=[other.url], models=["*"]),
    }
    gateway = await stage.gateway(upstreams=pools)
    assert (await gateway.chat(model="one-a")).cache == "MISS"
    assert (await gateway.chat(model="b")).cache == "MISS"
    assert (stage.upstream.calls, other.calls) == (1, 1), "each model goes to its own pool"


async def test_two_credentials_never_share_an_answer_unless_they_are_a_group(stage: Stage) -> None:
    digests = [hashlib.sha256(key).hexdigest() for key in (b"sk-a", b"sk-b")]
    gateway = await stage.gateway(groups={"team": digests})
    for key, expected in [("sk-a", "MISS"), ("sk-b", "HIT"), ("sk-c", "MISS"), ("sk-c", "HIT")]:
        got = await gateway.chat(headers={"authorization": f"Bearer {key}"})
        assert got.cache == expected, key
    assert (await gateway.chat()).cache == "MISS", "nobody in particular is a tenant too"


GROUP = [hashlib.sha256(key).hexdigest() for key in (b"sk-a", b"sk-b")]


@pytest.mark.parametrize(
    "shown",
    [
        [("x-api-key", "sk-a"), ("authorization", "Bearer rogue")],
        [("authorization", "Bearer sk-a"), ("api-key", "rogue"), ("x-api-key", "rogue")],
        [("authorization", "Bearer sk-a"), ("authorization", "Bearer rogue")],
    ],
)
async def test_a_member_of_a_group_shows_its_upstream_no_key_but_its_own(
    stage: Stage, shown: list[tuple[str, str]]
) -> None:
    gateway = await stage.gateway(groups={"team": GROUP})
    async with wire.line(gateway) as to:
        more = "".join(f"{name}: {value}\r\n" for name, value in shown)
        assert await to.ask(wire.asked("hi", more)) == "MISS"
    (seen,) = stage.upstream.seen
    keys = [seen.headers[name] for name in map(bytes.decode, SECRETS) if name in seen.headers]
    assert [key.removeprefix("Bearer ") for key in keys] == ["sk-a"]
    assert (await gateway.chat(headers={"authorization": "Bearer sk-b"})).cache == "HIT"


async def test_a_stranger_to_groups_sends_what_it_sent(stage: Stage) -> None:
    gateway = await stage.gateway(groups={"team": GROUP})
    await gateway.chat(headers={"authorization": "Bearer x", "x-api-key": "y"})
    (seen,) = stage.upstream.seen
    assert (seen.headers["authorization"], seen.headers["x-api-key"]) == ("Bearer x", "y")


@pytest.mark.parametrize("name", ["openai-organization", "openai-project"])
async def test_an_account_that_a_member_chooses_answers_for_those_who_choose_it(
    stage: Stage, name: str
) -> None:
    gateway = await stage.gateway(groups={"team": GROUP})
    first, second = {"authorization": "Bearer sk-a"}, {"authorization": "Bearer sk-b"}
    assert (await gateway.chat(headers=first | {name: "one"})).cache == "MISS"
    assert stage.upstream.seen[0].headers[name] == "one"
    for _ in range(2):
        assert (await gateway.chat(headers=second | {name: "one"})).cache == "HIT"
    assert (await gateway.chat(headers=second)).cache == "MISS"
    assert (await gateway.chat(headers=first | {name: "two"})).cache == "MISS"
    assert (await gateway.chat(headers=first)).cache == "HIT"


async def test_a_stored_answer_serves_both_shapes(gateway: Running, upstream: Upstream) -> None:
    streamed = await gateway.chat("a", stream=True)
    whole = await gateway.chat("a")
    again = await gateway.chat("a", stream=True)
    assert (streamed.cache, whole.cache, again.cache) == ("MISS", "HIT", "HIT")
    assert streamed.streamed_text == whole.text == again.streamed_text == "hello"
    first = await gateway.chat("b")
    replayed = await gateway.chat("b", stream=True)
    assert (replayed.cache, replayed.streamed_text) == ("HIT", first.text)
    assert replayed.events[-1] == "[DONE]"
    assert upstream.calls == 2


async def test_the_usage_chunk_is_there_exactly_when_this_request_asks_for_it(
    gateway: Running,
) -> None:
    asked = {"stream": True, "stream_options": {"include_usage": True}}
    live = await gateway.chat("u", **asked)
    assert live.events[-2]["usage"]["total_tokens"] == 18
    assert live.events[-2]["cache_hit"] is False, "the marks ride on the usage chunk"
    replayed = await gateway.chat("u", **asked)
    assert replayed.cache == "HIT"
    assert replayed.events[-2]["usage"]["total_tokens"] == 18
    assert replayed.events[-2]["cache_hit"] is True
    without = await gateway.chat("u", stream=True)
    assert without.cache == "HIT"
    assert not any(event.get("usage") for event in without.events[:-1])
    assert without.events[-2]["choices"][0]["finish_reason"] == "stop"
    assert without.events[-2]["cache_hit"] is True


async def test_usage_is_asked_for_on_behalf_of_a_client_only_where_the_pool_allows_it(
    stage: Stage,
) -> None:
    pool = Pool(urls=[stage.upstream.url], ask_usage=True)
    gateway = await stage.gateway(upstreams={"main": pool})
    live = await gateway.chat(stream=True)
    assert stage.upstream.seen[0].json["stream_options"] == {"include_usage": True}
    assert not any("usage" in event for event in live.events[:-1]), "it is taken out again"
    assert (await gateway.chat()).json["usage"]["total_tokens"] == 18


async def test_tool_calls_logprobs_reasoning_and_choices_survive_the_change_of_shape(
    gateway: Running, upstream: Upstream
) -> None:
    calls = [
        {"index": 0, "id": "call_1", "type": "function"}
        | {"function": {"name": "weather", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"city":'}},
        {"index": 0, "function": {"arguments": '"Paris"}'}},
    ]

    async def answer(seen: Seen, out: Out) -> None:
        events = [chunk({"role": "assistant", "reasoning_content": "let me "})]
        events += [chunk({"reasoning_content": "see"})]
        events += [chunk({"tool_calls": [call]}) for call in calls]
        events += [chunk({"content": "second"}, index=1), chunk({}, "stop", index=1)]
        await stream(out, [*events, chunk({}, "tool_calls")])

    upstream.script = answer
    live = await gateway.chat(stream=True, n=2)
    replayed = await gateway.chat(stream=True, n=2)
    assert replayed.cache == "HIT"
    assert len(replayed.events) == len(live.events), "the chunk structure is replayed"
    choices = (await gateway.chat(n=2)).json["choices"]
    message = choices[0]["message"]
    assert message["reasoning_content"] == "let me see"
    assert message["tool_calls"][0]["function"] == {
        "name": "weather",
        "arguments": '{"city":"Paris"}',
    }
    assert choices[0]["finish_reason"] == "tool_calls"
    assert choices[1]["message"]["content"] == "second"


async def test_a_whole_answer_with_tool_calls_and_logprobs_streams(
    gateway: Running, upstream: Upstream
) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    logprobs = {"content": [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}]}

    async def answer(seen: Seen, out: Out) -> None:
        body = completion(message={"content": None, "tool_calls": [call]}, finish="tool_calls")
        body["choices"][0]["logprobs"] = logprobs
        await out.json(body)

    upstream.script = answer
    await gateway.chat()
    events = (await gateway.chat(stream=True)).events
    deltas = [event["choices"][0] for event in events[:-1]]
    got = [part for delta in deltas for part in delta["delta"].get("tool_calls", [])]
    assert (got[0]["function"]["name"], got[0]["index"]) == ("f", 0)
    assert "".join(part["function"]["arguments"] for part in got) == "{}"
    assert any(delta.get("logprobs") == logprobs for delta in deltas)
    assert deltas[-1]["finish_reason"] == "tool_calls"


async def test_a_label_partitions_and_an_override_is_the_key(gateway: Running) -> None:
    def labelled(label: str, **more: Any) -> dict[str, Any]:
        return {"kv_cache": {"cache_key": label, **more}}

    first = await gateway.chat(**labelled("a"))
    assert (await gateway.chat(**labelled("a"))).cache == "HIT"
    assert (await gateway.chat(**labelled("b"))).cache == "MISS"
    assert (await gateway.chat(**labelled("b", batch_mode=True))).cache == "MISS"
    assert (await gateway.chat(**labelled("c", batch_mode=True))).cache == "HIT"
    assert first.json["kv_cache"]["cache_key"] == "a"
    bare = labelled("faq", key_mode="override")
    assert (await gateway.chat("one", **bare)).cache == "MISS"
    assert (await gateway.chat("another", **bare)).cache == "HIT"
    assert (await gateway.chat("another", model="m2", **bare)).cache == "MISS"


async def test_without_context_only_system_and_last_question_count(gateway: Running) -> None:
    def history(first: str) -> dict[str, Any]:
        turns = [("system", "s"), ("user", first), ("assistant", "ok"), ("user", "last")]
        messages = [{"role": role, "content": text} for role, text in turns]
        return {"messages": messages, "kv_cache": {"context_aware": False}}

    assert (await gateway.chat(**history("one"))).cache == "MISS"
    assert (await gateway.chat(**history("two"))).cache == "HIT"
    assert (await gateway.chat(**(history("two") | {"kv_cache": {}}))).cache == "MISS"


async def test_ignored_fields_are_the_operators_choice(stage: Stage) -> None:
    gateway = await stage.gateway(cache={"ignore_fields": ["user"]})
    await gateway.chat(user="a")
    assert (await gateway.chat(user="b")).cache == "HIT"
    assert json.loads(stage.upstream.seen[0].body)["user"] == "a", "it is still sent upstream"


async def test_a_field_that_counts_again_finds_no_answer_made_while_it_was_ignored(
    stage: Stage, tmp_path: Path
) -> None:
    store = {"url": f"sqlite:///{tmp_path / 'a.db'}", "secret": "s" * 32}
    for ignored, asked in ((["user"], {"user": "a"}), ([], {}), (["seed"], {}), (["user"], {})):
        gateway = await stage.gateway(cache={"ignore_fields": ignored}, store=store)
        known = ignored == ["user"] and not asked
        assert (await gateway.chat(**asked)).cache == ("HIT" if known else "MISS"), ignored
        assert gateway.assembly.shelf.flush(10)


async def test_answers_of_a_gateway_that_ignores_nothing_keep_their_keys(stage: Stage) -> None:
    gateway = await stage.gateway(cache={"ignore_fields": []})
    other = await stage.gateway(cache={"ignore_fields": ["user"]})
    keys = [(await each.chat(x=1)).headers["x-cache-key"] for each in (gateway, gateway, other)]
    assert keys[0] == keys[1] != keys[2]


async def test_a_key_is_one_clients_in_whichever_header_it_comes(stage: Stage) -> None:
    gateway = await stage.gateway()
    shown = [{"authorization": "Bearer sk-a"}, {"x-api-key": "sk-a"}, {"api-key": "sk-a"}]
    assert [(await gateway.chat(headers=each)).cache for each in shown] == ["MISS", "HIT", "HIT"]
    both = {"authorization": "Bearer sk-a", "x-api-key": "sk-b"}
    for another in ({"x-api-key": "sk-b"}, {"x-api-key": "Bearer sk-a"}, both):
        assert (await gateway.chat(headers=another)).cache == "MISS"
