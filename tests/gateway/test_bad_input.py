"""Bad input is refused and named, in the protocol's shape; what has no key still works."""

from __future__ import annotations

import gzip
import json
import zlib
from hashlib import sha256
from time import process_time
from typing import Any

import pytest

from gateway.conftest import CHAT, Running, Stage
from gateway.upstream import Out, Seen, Upstream, completion
from thinkonce.settings import Client
from thinkonce.settings import Upstream as Pool
from thinkonce.upstream.pools import base_url

KIND = {"content-type": "application/json"}


def names(body: bytes) -> dict[str, Any]:
    """The error in OpenAI's shape."""
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    return error


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"", "line 1 column 1"),
        (b'{"model": "m",\n  "messages": [}', "line 2 column 16"),
        (b'{"model": NaN}', "line 1 column 11"),
        (b'{"a": 01}', "line 1 column 8"),
        (b'{"a": 1} trailing', "line 1 column 10"),
        (b"\xff\xfe{\x00", "line 1 column 1"),
        (b"hello", "line 1 column 1"),
    ],
)
async def test_what_is_not_json_is_a_400_that_says_where(
    gateway: Running, upstream: Upstream, body: bytes, where: str
) -> None:
    got = await gateway.send("POST", CHAT, body, KIND)
    assert got.status == 400
    assert (got.cache, got.reason) == ("BYPASS", "error")
    assert where in names(got.body)["message"]
    assert upstream.calls == 0


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"1", b"null", b"true"])
async def test_json_that_is_no_object_is_a_400(gateway: Running, body: bytes) -> None:
    got = await gateway.send("POST", CHAT, body, KIND)
    assert got.status == 400
    assert "object" in names(got.body)["message"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("model", 5), ("model", None), ("stream", "yes"), ("stream", 1), ("stream_options", [1])],
)
async def test_a_field_the_gateway_reads_must_have_its_type(
    gateway: Running, upstream: Upstream, field: str, value: object
) -> None:
    got = await gateway.chat(**{field: value})
    error = names(got.body)
    assert (got.status, error["param"], upstream.calls) == (400, field, 0)
    assert repr(value) in error["message"]


@pytest.mark.parametrize(
    ("fields", "named", "accepts"),
    [
        ({"kv_cache": {"tll": 5}}, "kv_cache.tll", "context_aware"),
        ({"kv_cache": {"ttl": "soon"}}, "kv_cache.ttl", "hot"),
        ({"kv_cache": {"ttl": -1}}, "kv_cache.ttl", "0"),
        ({"kv_cache": {"priority": "urgent"}}, "kv_cache.priority", "medium"),
        ({"kv_cache": {"enabled": "no"}}, "kv_cache.enabled", "true or false"),
        ({"kv_cache": []}, "kv_cache", "object"),
        ({"cache": {"ttl": "x"}}, "cache.ttl", "seconds"),
    ],
)
async def test_a_bad_control_is_a_400_that_names_it_and_what_it_accepts(
    gateway: Running, upstream: Upstream, fields: dict[str, Any], named: str, accepts: str
) -> None:
    got = await gateway.chat(**fields)
    error = names(got.body)
    assert (got.status, error["param"], upstream.calls) == (400, named, 0)
    assert accepts in error["message"]


@pytest.mark.parametrize(
    ("member", "param"),
    [
        ('"kv_cache":{"cache_key":"a\\ud800"}', "kv_cache.cache_key"),
        ('"kv_cache":{"namespace":"\\udfff"}', "kv_cache.namespace"),
        ('"kv_cache":{"tags":["fine","\\ud800"]}', "kv_cache.tags"),
        ('"kv_cache":{"priority":"\\ud800"}', "kv_cache.priority"),
        ('"kv_cache":{"a\\ud800":1}', "kv_cache.a\\ud800"),
        ('"cache":{"namespace":"\\ud800"}', "cache.namespace"),
        ('"cache":{"\\ud800":1}', "cache.\\ud800"),
    ],
)
async def test_half_a_surrogate_pair_in_a_control_is_a_400_that_names_the_field(
    gateway: Running, upstream: Upstream, member: str, param: str
) -> None:
    body = f'{{"model":"m","messages":[],{member}}}'.encode()
    got = await gateway.send("POST", CHAT, body, KIND)
    assert got.status == 400
    assert names(got.body)["param"] == param
    assert upstream.calls == 0


@pytest.mark.parametrize(
    "control",
    [
        {"namespace": "n" * 5000},
        {"tags": ["t" * 257]},
        {"tags": ["t"] * 5000},
        {"priority": "p" * 5000},
        {"ttl": "x" * 5000},
        {"f" * 5000: 1},
    ],
    ids=lambda control: next(iter(control))[:10],
)
async def test_an_error_quotes_only_the_beginning_of_what_it_got(
    gateway: Running, control: dict[str, Any]
) -> None:
    error = names((await gateway.chat(kv_cache=control)).body)
    assert len(error["message"]) < 500
    assert len(error["param"]) < 100


async def test_a_bad_control_in_a_header_is_named_too(gateway: Running) -> None:
    got = await gateway.chat(headers={"x-thinkonce-ttl": "soon"})
    assert got.status == 400
    assert "x-thinkonce-ttl" in names(got.body)["message"]


@pytest.mark.parametrize(
    ("control", "field", "status", "says"),
    [
        ({"semantic": True}, "kv_cache.semantic", 400, "[semantic] enabled"),
        ({"semantic": 0.9}, "kv_cache.semantic", 400, "[semantic] enabled"),
        ({"semantic": 0}, "kv_cache.semantic", 400, "[semantic] enabled"),
        ({"reuse": "blend"}, "kv_cache.reuse", 400, "no `thinkonce serve-model`"),
        ({"reuse": "auto"}, "kv_cache.reuse", 400, "no `thinkonce serve-model`"),
        ({"schema": "persona"}, "kv_cache.schema", 400, "no `thinkonce serve-model`"),
    ],
)
async def test_a_control_that_would_do_nothing_is_refused_by_name(
    gateway: Running,
    upstream: Upstream,
    control: dict[str, Any],
    field: str,
    status: int,
    says: str,
) -> None:
    got = await gateway.chat(kv_cache=control)
    error = got.json["error"]
    assert (got.status, error["param"]) == (status, field)
    assert says in error["message"]
    name = field.replace("kv_cache.", "x-thinkonce-")
    header = {name: str(control[field.removeprefix("kv_cache.")]).lower()}
    assert (await gateway.chat(headers=header)).status == status
    assert upstream.calls == 0


async def test_what_asks_for_no_more_than_is_built_is_served(
    gateway: Running, upstream: Upstream
) -> None:
    for control in ({"semantic": False}, {"reuse": "exact"}, {"semantic": None}):
        assert (await gateway.chat(kv_cache=control)).status == 200
    assert upstream.calls == 1, "they are the same question"


async def test_fields_nobody_knows_pass_through_to_the_upstream_that_decides(
    gateway: Running, upstream: Upstream
) -> None:
    got = await gateway.chat(messages="not a list", frobnicate={"a": [1, 2]})
    assert got.status == 200
    assert upstream.seen[0].json["frobnicate"] == {"a": [1, 2]}
    assert upstream.seen[0].json["messages"] == "not a list"


async def test_the_upstream_gets_the_very_bytes(gateway: Running, upstream: Upstream) -> None:
    body = b'{ "model":"m" ,\t"messages":[],"temperature": 1.50,"top_p":1e0 }'
    await gateway.send("POST", CHAT, body, KIND)
    assert upstream.seen[0].body == body
    marked = body[:-1] + b', "kv_cache": {"refresh": true}}'
    await gateway.send("POST", CHAT, marked, KIND)
    assert json.loads(upstream.seen[1].body) == json.loads(body)
    assert b'"temperature": 1.50,"top_p":1e0' in upstream.seen[1].body


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","messages":[],"n":1e400}',
        b'{"model":"m","messages":[],"seed":123456789012345678901234567890}',
        b'{"model":"m","messages":[],"user":"a","user":"b"}',
        b'{"model":"m","messages":[],"user":"\\ud800"}',
        b'{"model":"m","messages":[],"deep":' + b"[" * 2000 + b"]" * 2000 + b"}",
    ],
    ids=["infinite", "too many bits", "twice the same name", "lone surrogate", "too deep"],
)
async def test_what_cannot_be_told_apart_safely_is_forwarded_and_never_stored(
    gateway: Running, upstream: Upstream, body: bytes
) -> None:
    async def plain(seen: Seen, out: Out) -> None:
        await out.json(completion())

    upstream.script = plain
    for _ in range(2):
        got = await gateway.send("POST", CHAT, body, KIND)
        assert (got.status, got.cache, got.reason) == (200, "BYPASS", "unkeyable")
    assert [seen.body for seen in upstream.seen] == [body, body]


async def test_state_elsewhere_is_not_cached(gateway: Running, upstream: Upstream) -> None:
    asked = {"tools": [{"type": "function", "function": {"name": "f"}}], "store": True}
    await gateway.chat(**asked)
    assert (await gateway.chat(**asked)).cache == "HIT", "store has no effect on the answer"


async def test_the_wrong_content_type_is_named(gateway: Running, upstream: Upstream) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    got = await gateway.send("POST", CHAT, b'{"model":"m"}', form)
    assert (got.status, names(got.body)["param"]) == (415, "content-type")
    for kind in ("application/json; charset=utf-8", "application/vnd.api+json"):
        got = await gateway.send("POST", CHAT, b'{"messages":[]}', {"content-type": kind})
        assert got.status == 200


async def test_a_body_that_says_it_is_not_utf8_is_refused(
    gateway: Running, upstream: Upstream
) -> None:
    """A server would read another question in it than the one the answer is kept to."""
    body = b'{"model":"m","messages":[{"role":"user","content":"na\xc3\xafve"}]}'
    for charset in ("cp1250", "utf-7", '"UTF-16"', "latin1 "):
        kind = {"content-type": f"application/json;Charset = {charset}"}
        got = await gateway.send("POST", CHAT, body, kind)
        assert (got.status, names(got.body)["param"]) == (415, "content-type")
        assert charset.strip(' "') in names(got.body)["message"]
    assert upstream.calls == 0


async def test_types_that_are_not_in_the_key_are_the_gateways_own(
    gateway: Running, upstream: Upstream
) -> None:
    kinds = ("application/json; charset=utf-8", "application/vnd.api+json", 'a/json;charset="UTF8"')
    for kind in kinds:
        got = await gateway.chat(headers={"content-type": kind, "accept": "text/csv"})
        assert got.status == 200
    await gateway.chat("other", stream=True)
    shown = [(seen.headers["content-type"], seen.headers["accept"]) for seen in upstream.seen]
    json_type = "application/json"
    assert shown == [(json_type, json_type), (json_type, "text/event-stream")]


async def test_a_compressed_body_is_read_and_one_that_unfolds_too_far_is_refused(
    stage: Stage,
) -> None:
    gateway = await stage.gateway(gateway={"body_limit": 100_000})
    plain = b'{"model":"m","messages":[]}'
    for coding, packed in [("gzip", gzip.compress(plain)), ("deflate", zlib.compress(plain))]:
        got = await gateway.send("POST", CHAT, packed, KIND | {"content-encoding": coding})
        assert got.status == 200
    assert stage.upstream.seen[0].body == plain
    assert (await gateway.send("POST", CHAT, plain, KIND)).cache == "HIT"
    bomb = gzip.compress(b'"' + b" " * 10_000_000 + b'"')
    got = await gateway.send("POST", CHAT, bomb, KIND | {"content-encoding": "gzip"})
    assert got.status == 413
    got = await gateway.send("POST", CHAT, b"no gzip", KIND | {"content-encoding": "gzip"})
    assert got.status == 400
    got = await gateway.send("POST", CHAT, plain, KIND | {"content-encoding": "br"})
    assert (got.status, names(got.body)["param"]) == (415, "content-encoding")


async def test_a_body_may_not_unfold_into_more_values_than_anybody_means(
    gateway: Running, upstream: Upstream
) -> None:
    """A byte of `[],` becomes twenty when it is parsed, and they are held during the call."""
    many = gzip.compress(b'{"messages":[],"x":[' + b"[]," * 600_000 + b"0]}", 1)
    got = await gateway.send("POST", CHAT, many, KIND | {"content-encoding": "gzip"})
    assert (got.status, names(got.body)["param"], upstream.calls) == (413, "body", 0)
    endless = b'{"messages":["' + b',\\"' * 400_000
    assert (await gateway.send("POST", CHAT, endless * 3, KIND)).status == 400
    text = b'{"messages":[{"role":"user","content":"' + b'[],\\"' * 400_000 + b'"}]}'
    assert (await gateway.send("POST", CHAT, text, KIND)).status == 200, "a text is one value"


async def test_a_body_and_headers_have_limits(stage: Stage) -> None:
    gateway = await stage.gateway(gateway={"body_limit": 10_000_000, "header_limit": 4096})
    got = await gateway.chat("x" * 11_000_000)
    assert (got.status, names(got.body)["code"]) == (413, "body_too_large")
    large = await gateway.chat("x" * 9_000_000)
    assert large.status == 200, "a body inside the limit is read whole"

    async def pieces() -> Any:
        for _ in range(110):
            yield b"y" * 100_000

    async with gateway.session.post(gateway.url + CHAT, data=pieces(), headers=KIND) as response:
        assert response.status == 413, "also without a content-length"
    got = await gateway.chat(headers={"x-long": "z" * 5000})
    assert (got.status, names(got.body)["code"]) == (431, "headers_too_large")


async def test_a_model_nobody_serves_is_a_404_that_lists_the_patterns(stage: Stage) -> None:
    pool = Pool(urls=[stage.upstream.url], models=["gpt-*", "o3"])
    gateway = await stage.gateway(upstreams={"main": pool})
    got = await gateway.chat(model="claude")
    assert got.status == 404
    assert "gpt-*, o3" in names(got.body)["message"]


async def test_a_gateway_that_is_its_own_upstream_says_so(stage: Stage) -> None:
    first = await stage.gateway()
    second = await stage.gateway(upstreams={"first": Pool(urls=[first.url])})
    redirect(first, second.url)
    got = await second.chat(kv_cache={"enabled": False})
    assert got.status == 508
    assert got.json["error"]["code"] == "loop_detected"
    assert stage.upstream.calls == 0


async def test_paths_work_with_and_without_v1_and_others_are_forwarded(
    gateway: Running, upstream: Upstream
) -> None:
    body = {"model": "m", "messages": []}
    assert (await gateway.post("/v1/chat/completions", body)).cache == "MISS"
    assert (await gateway.post("/chat/completions", body)).cache == "HIT"
    for path in ("/v1/models", "/models", "/v1/models/gpt-4o", "/v1/files?limit=2", "/files"):
        got = await gateway.get(path)
        assert (got.status, got.cache, got.reason) == (200, "BYPASS", "endpoint")
    paths = [seen.path for seen in upstream.seen[1:]]
    assert paths == ["/v1/models"] * 2 + ["/v1/models/gpt-4o", "/v1/files?limit=2", "/v1/files"]
    for path in ("/images/generations", "/v1/moderations", "/responses/compact"):
        got = await gateway.post(path, {"model": "m", "input": "x"})
        assert (got.cache, got.reason) == ("BYPASS", "endpoint")
    got = await gateway.send("DELETE", "/v1/files/f-1", headers={"authorization": "Bearer k"})
    assert (upstream.seen[-1].method, upstream.seen[-1].path) == ("DELETE", "/v1/files/f-1")
    assert upstream.seen[-1].headers["authorization"] == "Bearer k"


async def test_a_forwarded_stream_arrives_byte_for_byte(
    gateway: Running, upstream: Upstream
) -> None:
    odd = b": comment\r\nevent: x\r\ndata: {}\r\n\r\n"

    async def speak(seen: Seen, out: Out) -> None:
        await out.begin_stream()
        for at in range(0, len(odd), 5):
            await out.piece(odd[at : at + 5])
        await out.end()

    upstream.script = speak
    got = await gateway.post("/v1/audio/speech", {"model": "m", "stream": True})
    assert got.body == odd
    assert got.headers["content-type"] == "text/event-stream"


@pytest.mark.parametrize("body", [b'{"model":"\xed"}', b'{"model":', b'{"a" 1 "model": 2 "b":3}'])
async def test_a_body_that_is_no_json_is_forwarded_where_pools_are_told_by_its_model(
    stage: Stage, upstream: Upstream, body: bytes
) -> None:
    pools = {name: Pool(urls=[upstream.url], models=[name]) for name in ("a", "b")}
    gateway = await stage.gateway(upstreams=pools)
    got = await gateway.send("POST", "/v1/files", body)
    assert (got.status, upstream.seen[0].body) == (200, body)


@pytest.mark.parametrize("body", [b'{"model":"\xed"}', b'{"model":', b'{"a" 1 "model": 2 "b":3}'])
async def test_a_body_that_is_no_json_is_closed_to_a_client_whose_models_are_limited(
    stage: Stage, upstream: Upstream, body: bytes
) -> None:
    row = Client(key_sha256=sha256(b"sk-a").hexdigest(), models=["m"])
    gateway = await stage.gateway(clients={"alice": row})
    sent = {"authorization": "Bearer sk-a"}
    got = await gateway.send("POST", "/v1/moderations", body, sent)
    assert (got.status, upstream.calls) == (403, 0)


@pytest.mark.parametrize("path", ["import", "preload", "explain", "purge", "limits"])
@pytest.mark.parametrize("body", [b'{"a":' * 3000, b"[" * 5000, b'{"a":"\xed"}'])
async def test_nested_or_undecodable_bodies_to_the_cache_itself_are_the_callers_mistake(
    gateway: Running, path: str, body: bytes
) -> None:
    sent = {"content-type": "application/json", "x-thinkonce-tenant": "anonymous"}
    got = await gateway.send("POST", f"/cache/{path}", body, sent)
    assert got.status == (200 if path == "preload" else 400), "a preload says it line by line"


async def test_pages_that_are_not_built_say_so(gateway: Running, upstream: Upstream) -> None:
    for path in ("/dashboard", "/v1/dashboard"):
        got = await gateway.get(path)
        assert got.status == 501
        assert "not built yet" in got.json["error"]["message"]
    assert upstream.calls == 0


def redirect(gateway: Running, url: str) -> None:
    """Point a running gateway's only pool somewhere else."""
    (pool,) = gateway.assembly.pools.all
    pool.servers[0].base = base_url(url)


MANY = 200_000
DISTINCT = b",".join(b'"%x":1' % number for number in range(MANY))
EQUAL = b",".join([b'"a":1'] * MANY)
ESCAPED = b",".join([b'"\\u0061":1'] * MANY)
HALF = b'"s":"\\ud800",'  # a surrogate: what only the slow parser reads


@pytest.mark.parametrize(
    "odd", [DISTINCT, EQUAL, ESCAPED, HALF + EQUAL], ids=["distinct", "equal", "escaped", "slow"]
)
async def test_a_body_of_very_many_members_is_refused_before_they_are_gone_through(
    gateway: Running, upstream: Upstream, odd: bytes
) -> None:
    body = b'{"model":"priced","messages":[],"kv_cache":{"ttl":5},' + odd + b"}"
    began = process_time()
    got = await gateway.send("POST", CHAT, body, KIND)
    assert got.status == 413
    assert "1000 members" in names(got.body)["message"]
    assert process_time() - began < 1.0, "others wait for as long"
    assert upstream.calls == 0


async def test_a_thousand_members_are_answered(gateway: Running) -> None:
    more = {f"m{number}": number for number in range(998)}
    assert (await gateway.chat(**more)).status == 200
    assert (await gateway.chat(**more, last=1)).status == 413


async def test_names_within_a_member_are_not_counted(gateway: Running) -> None:
    assert (await gateway.chat(metadata=dict.fromkeys(map(str, range(3000)), ""))).status == 200


async def test_a_limited_clients_model_is_looked_for_among_a_bounded_number_of_members(
    stage: Stage, upstream: Upstream
) -> None:
    row = Client(key_sha256=sha256(b"k").hexdigest(), models=["priced"])
    gateway = await stage.gateway(clients={"one": row})
    body = b'{"model":"priced","input":"x",' + EQUAL + b"}"
    sent = KIND | {"authorization": "Bearer k"}
    assert (await gateway.send("POST", "/v1/moderations", body, sent)).status == 403
    good = b'{"model":"priced","input":"x"}'
    assert (await gateway.send("POST", "/v1/moderations", good, sent)).status == 200


async def test_a_few_bytes_that_unfold_to_very_many_are_refused(
    gateway: Running, upstream: Upstream
) -> None:
    body = b'{"model":"priced","messages":[{"role":"user","content":"%s"}]}' % (b"a" * 4_000_000)
    sent = KIND | {"content-encoding": "gzip"}
    got = await gateway.send("POST", CHAT, gzip.compress(body), sent)
    assert got.status == 413
    assert "100 times" in names(got.body)["message"]
    assert upstream.calls == 0
