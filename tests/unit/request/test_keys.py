"""Keys: what enters, what does not, and that they are the same for ever."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import thinkonce
from thinkonce.protocols.registry import DIALECTS
from thinkonce.request.arguments import canonical_args
from thinkonce.request.canonical import parse_body
from thinkonce.request.controls import DEFAULTS, Controls
from thinkonce.request.key import ANONYMOUS, Keyer, request_parts, wanted_parts

SECRET = bytes(range(32))
GOLDEN = Path(__file__).with_name("golden_keys.json")
BODY = {"model": "m", "messages": [{"role": "user", "content": "Was kostet es?"}]}


def parts_of(
    body: dict[str, Any] = BODY,
    controls: Controls = DEFAULTS,
    *,
    endpoint: str = "chat/completions",
    pool: str = "default",
    tenant: str = "t1",
    headers: tuple[tuple[bytes, bytes], ...] = (),
    query: bytes = b"",
) -> bytes:
    """What a request's key is made of, as `engine.asking.Reader` puts it together."""
    where = (endpoint, pool, tenant, controls.namespace)
    return request_parts(where, wanted_parts(controls), body, headers, query)


def key(*, secret: bytes = SECRET, **changed: Any) -> bytes:
    """The digest of one request, with some of its parts changed."""
    return Keyer(secret).key_of(parts_of(**changed)).digest


DIFFERENT: dict[str, dict[str, Any]] = {
    "plain": {},
    "secret": {"secret": bytes(32)},
    "endpoint": {"endpoint": "completions"},
    "pool": {"pool": "other"},
    "tenant": {"tenant": "t2"},
    "namespace": {"controls": Controls(namespace="v2")},
    "label": {"controls": Controls(label="v2")},
    "context": {"controls": Controls(context_aware=False)},
    "override": {"controls": Controls(label="v2", override=True)},
    "header": {"headers": ((b"openai-beta", b"v2"),)},
    "header value": {"headers": ((b"openai-beta", b"v3"),)},
    "body": {"body": {**BODY, "seed": 1}},
    "query": {"query": b"api-version=1"},
    "query value": {"query": b"api-version=2"},
    "query, override": {"controls": Controls(label="v2", override=True), "query": b"key=A"},
    "query value, override": {"controls": Controls(label="v2", override=True), "query": b"key=B"},
}


def test_requests_that_differ_in_one_part_have_different_keys() -> None:
    seen: dict[bytes, str] = {}
    for name, changed in DIFFERENT.items():
        digest = key(**changed)
        assert digest not in seen, f"{name} shares a key with {seen[digest]}"
        seen[digest] = name


def test_what_only_concerns_storing_is_not_in_the_key() -> None:
    controls = Controls(ttl=5.0, priority="high", tags=("a",), refresh=True, read=False)
    assert key(controls=controls) == key()


def test_parts_do_not_run_into_each_other() -> None:
    assert key(pool="ab", tenant="c") != key(pool="a", tenant="bc")
    labelled, spaced = Controls(label="x", namespace=""), Controls(label="", namespace="x")
    assert key(controls=labelled) != key(controls=spaced)


def test_batch_mode_leaves_the_label_out() -> None:
    first = Controls(label="item-1", batch_mode=True)
    second = Controls(label="item-2", batch_mode=True)
    assert key(controls=first) == key(controls=second) == key()


def test_an_overriding_label_is_the_key_within_tenant_model_endpoint_pool_and_namespace() -> None:
    controls = Controls(label="template:sort", override=True)
    other_prompt = {**BODY, "messages": [], "seed": 5}
    here = key(controls=controls)
    assert key(controls=controls, body=other_prompt, headers=((b"a", b"b"),)) == here
    assert key(controls=controls, body={**BODY, "model": "n"}) != here
    assert key(controls=controls, tenant="t2") != here
    assert key(controls=controls, endpoint="completions") != here
    assert key(controls=controls, pool="other") != here
    assert key(controls=Controls(label="template:sort", override=True, namespace="n")) != here


def test_a_key_is_32_bytes_and_holds_nothing_of_the_prompt() -> None:
    digest = key()
    assert len(digest) == 32
    assert b"kostet" not in digest


def test_the_local_key_is_exact_for_small_requests_and_the_digest_for_large_ones() -> None:
    keyer = Keyer(SECRET)
    small = keyer.key_of(parts_of(BODY))
    large = keyer.key_of(parts_of({**BODY, "picture": "x" * 20_000}))
    assert b"kostet" in small.local  # type: ignore[operator]
    assert large.local == large.digest
    assert small.digest == key(body=BODY)


# -- tenants -------------------------------------------------------------------------------------


def test_tenants_are_told_apart_by_credential_and_by_secret() -> None:
    keyer = Keyer(SECRET)
    one = keyer.tenant([(b"authorization", b"Bearer a")])
    assert one == keyer.tenant([(b"authorization", b"Bearer a")])
    assert len(one) == 32
    assert set(one) <= set("0123456789abcdef")
    others = [
        keyer.tenant([(b"authorization", b"Bearer b")]),
        keyer.tenant([(b"x-api-key", b"Bearer a")]),
        keyer.tenant([(b"authorization", b"Bearer a"), (b"openai-project", b"p")]),
        Keyer(bytes(32)).tenant([(b"authorization", b"Bearer a")]),
        keyer.tenant([]),
    ]
    assert len({one, *others}) == 6
    assert keyer.tenant([]) == ANONYMOUS


def test_the_memo_of_tenants_is_bounded_and_changes_nothing() -> None:
    keyer = Keyer(SECRET)
    first = keyer.tenant([(b"authorization", b"0")])
    for number in range(5000):
        keyer.tenant([(b"authorization", b"%d" % number)])
    assert len(keyer._tenants) <= 4096
    assert keyer.tenant([(b"authorization", b"0")]) == first


# -- calls -----------------------------------------------------------------------------------------


def test_calls_differ_in_function_version_namespace_and_arguments() -> None:
    keyer = Keyer(SECRET)
    parts = ("module.ask", "v1", "n", b"args")
    others = [
        ("module.tell", "v1", "n", b"args"),
        ("module.ask", "v2", "n", b"args"),
        ("module.ask", "v1", "m", b"args"),
        ("module.ask", "v1", "n", b"other"),
        ("module.askv1", "", "n", b"args"),
    ]
    assert keyer.call_digest(*parts) == keyer.call_key(*parts).digest
    assert len({keyer.call_digest(*each) for each in [parts, *others]}) == 6


def test_a_call_keeps_the_local_key_it_is_given() -> None:
    keyer = Keyer(SECRET)
    given = keyer.call_key("f", "v", "", b"args", local=("x", 1))
    assert given.local == ("x", 1)
    assert given.digest == keyer.call_key("f", "v", "", b"args").digest


def test_a_call_is_never_a_request() -> None:
    request = key(body={}, endpoint="a", pool="b", tenant="c")
    assert Keyer(SECRET).call_digest("a", "b", "c", b"") != request


# -- golden vectors --------------------------------------------------------------------------------

REQUESTS: dict[str, tuple[bytes, Controls]] = {
    "chat": (json.dumps(BODY).encode(), Controls()),
    "numbers": (b'{"model":"m","temperature":0.0,"top_p":1e0,"seed":-3,"x":0.7}', Controls()),
    "chinese": ('{"model":"m","messages":[{"content":"你好，世界"}]}'.encode(), Controls()),
    "nested": (b'{"b":[1,[2,{"z":null,"a":true}]],"a":{}}', Controls()),
    "labelled": (b'{"model":"m"}', Controls(label="l", namespace="n", context_aware=False)),
    "override": (b'{"model":"m","seed":1}', Controls(label="l", override=True)),
    "long": (b'{"model":"m","text":"%b"}' % (b"x" * 50_000), Controls()),
}
# Of each endpoint: bodies whose identity its dialect makes.
IDENTITIES: dict[str, tuple[str, bytes, bool]] = {
    "completions, text": (
        "completions",
        b'{"model":"m","prompt":"Once","stream":true,"stream_options":{"include_usage":true}}',
        True,
    ),
    "completions, tokens": (
        "completions",
        b'{"prompt":[[1,2],[3]],"n":2,"best_of":3,"echo":true,"logprobs":1,"suffix":".","x":{}}',
        True,
    ),
    "responses, text": (
        "responses",
        b'{"model":"m","input":"Hi","previous_response_id":"resp_0","kv_cache":{"ttl":5}}',
        True,
    ),
    "responses, turns": (
        "responses",
        b'{"model":"m","instructions":"be brief","input":[{"role":"user","content":"1"},'
        b'{"role":"assistant","content":"2"},{"role":"user","content":[{"type":"input_image",'
        b'"image_url":"data:image/png;base64,aaaa"}]}],"text":{"format":{"type":"json_object"}}}',
        True,
    ),
    "responses, no context": (
        "responses",
        b'{"model":"m","input":[{"role":"developer","content":"d"},{"role":"user","content":"1"},'
        b'{"role":"user","content":"2"},{"type":"function_call_output","call_id":"c"}]}',
        False,
    ),
}
CALLS: dict[str, tuple[Any, ...]] = {
    "plain": ("hello", 1, 1.0, True, None, b"x"),
    "messages": ([{"role": "user", "content": "hi"}], 0.5),
    "wrapped": ((1, 2), {3, 1, 2}, {1: "a"}, 2**70, -0.0),
}


def golden() -> dict[str, str]:
    keyer = Keyer(SECRET)
    keys = {"tenant": keyer.tenant([(b"authorization", b"Bearer golden")])}
    for name, (raw, controls) in REQUESTS.items():
        made = key(body=parse_body(raw).body, controls=controls, pool="p", tenant="t")
        keys[f"request {name}"] = made.hex()
    for name, (dialect, raw, context_aware) in IDENTITIES.items():
        body = DIALECTS[dialect].identity(parse_body(raw).body, context_aware=context_aware)
        made = key(body=body, endpoint=dialect, pool="p", tenant="t")
        keys[f"identity {name}"] = made.hex()
    for name, values in CALLS.items():
        args = canonical_args([str(place) for place in range(len(values))], values)
        keys[f"call {name}"] = keyer.call_digest("module.ask", "v1", "n", args).hex()
    return keys


def test_keys_are_what_they_were_when_this_version_was_released() -> None:
    assert golden() == json.loads(GOLDEN.read_text())


@pytest.mark.parametrize("seed", ["0", "4242"])
def test_keys_are_the_same_in_a_fresh_process_with_another_hash_seed(seed: str) -> None:
    source = Path(thinkonce.__file__).parents[1]
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(source)}
    printed = subprocess.run(
        [sys.executable, __file__], env=environment, capture_output=True, check=True, timeout=60
    ).stdout
    assert json.loads(printed) == json.loads(GOLDEN.read_text())


if __name__ == "__main__":
    print(json.dumps(golden(), indent=1))
