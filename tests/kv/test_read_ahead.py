"""Prompts read ahead of time: kept as an answer's are, behind all who wait, and gone on with."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from anthropic import Anthropic
from openai import OpenAI
from small_model import Serve, Served, client_of

from thinkonce.errors import RequestError
from thinkonce.kv import Engine
from thinkonce.settings import Kv

SECRET = "s" * 64
TEXT = "The quick brown fox jumps over the lazy dog. " * 12
CHAT = {"messages": [{"role": "user", "content": TEXT}]}
LONG = "A fox and a dog. " * 100
BATCHES = [
    ("chat/completions", CHAT),
    ("completions", {"prompt": TEXT}),
    ("messages", {**CHAT, "system": "Answer.", "max_tokens": 1}),
]


def line(body: Any, url: str = "chat/completions", **fields: Any) -> bytes:
    return msgspec.json.encode({"url": f"/v1/{url}", "body": body, **fields}) + b"\n"


def preload(served: Served, body: bytes, query: str = "", **headers: str) -> list[dict[str, Any]]:
    answer = httpx.post(
        f"{served.url}/kv/preload{query}",
        content=body,
        headers={"content-type": "application/jsonl", **headers},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    return [msgspec.json.decode(each) for each in answer.content.splitlines()]


def asked(served: Served, url: str, body: Any, **headers: str) -> dict[str, Any]:
    wanted = {"max_tokens": 4, "temperature": 0, **body}
    answer = httpx.post(f"{served.url}/v1/{url}", json=wanted, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


@pytest.mark.parametrize(("url", "body"), BATCHES)
def test_what_was_read_ahead_is_loaded_and_answered_as_if_it_were_not(
    serve: Serve, url: str, body: Any
) -> None:
    cold = asked(serve(), url, body)
    served = serve()
    result, sums = preload(served, line(body, url, custom_id="a"))
    assert (result["stored"], result["outcome"], result["custom_id"]) == (True, "miss", "a")
    assert result["kept_tokens"] == result["prompt_tokens"] // 64 * 64 > 0
    assert sums == {"done": True, "lines": 1, "stored": 1, "already": 0, "failed": 0}
    assert served.generator.begun == [], "no answer was made"
    warm = asked(served, url, body)
    usage = warm.pop("usage")
    names = ("prompt_cache_hit_tokens", "cache_read_input_tokens")
    assert [usage[name] for name in names if name in usage] == [result["kept_tokens"]]
    for answer in (cold, warm):
        for name in ("id", "created", "usage"):
            answer.pop(name, None)
        for choice in answer.get("choices", ()):
            choice.get("message", {}).pop("kv_cache", None)
    assert warm == cold


def test_what_is_kept_already_costs_nothing_and_counts_as_nobodys_prompt(served: Served) -> None:
    preload(served, line(CHAT))
    (result, sums) = preload(served, line(CHAT))
    assert result["outcome"] == "hit"
    assert result["cached_tokens"] == result["kept_tokens"]
    assert sums["already"] == 1
    stats = httpx.get(f"{served.url}/kv/stats").json()
    assert (stats["prompts"], stats["prompt_tokens"], stats["cached_tokens"]) == (0, 0, 0)
    assert stats["prefill"]["count"] == stats["blocks_added"] > 0


def test_progress_is_told_a_block_at_a_time_where_it_is_asked_for(served: Served) -> None:
    *rows, result, _ = preload(served, line({"prompt": LONG}, "completions"), "?progress=true")
    read = [row["read"] for row in rows]
    assert read == list(range(0, result["kept_tokens"] + 1, 64))
    assert {row["of"] for row in rows} == {result["kept_tokens"]}


def test_each_line_that_cannot_be_kept_says_why_and_the_others_go_on(served: Served) -> None:
    bad: dict[str, bytes] = {
        "JSON": b"{\n",
        "url": line(CHAT, "embeddings"),
        "POST http://[x": msgspec.json.encode({"url": "http://[x", "body": CHAT}) + b"\n",
        "does not exist": line({**CHAT, "model": "other"}),
        "they fill no block": line({"prompt": "Hi"}, "completions"),
        "context_length|context holds": line({"prompt": LONG * 20}, "completions"),
        "kv_cache.enabled": line({**CHAT, "kv_cache": {"enabled": False}}),
        "kv_cache.life": line({**CHAT, "kv_cache": {"life": 1}}),
    }
    *results, last, sums = preload(served, b"".join(bad.values()) + line(CHAT))
    for (why, _), result in zip(bad.items(), results, strict=True):
        assert any(each in result["error"] for each in why.split("|")), result
        assert result["stored"] is False
    assert last["stored"] is True
    assert (sums["failed"], sums["stored"]) == (len(bad), 1)


def test_terms_of_a_line_are_those_of_its_blocks(served: Served) -> None:
    kept = {"tags": ["doc"], "ttl": "1h", "priority": "high"}
    preload(served, line({**CHAT, "kv_cache": kept}))
    tagged = {**CHAT, "kv_cache": {"tags": ["doc"]}}
    assert asked(served, "chat/completions", tagged)["usage"]["prompt_cache_hit_tokens"] > 0
    assert asked(served, "chat/completions", CHAT)["usage"]["prompt_cache_hit_tokens"] == 0
    httpx.post(f"{served.url}/kv/purge", json={"tags": ["doc"]}).raise_for_status()
    assert asked(served, "chat/completions", tagged)["usage"]["prompt_cache_hit_tokens"] == 0


def test_the_client_that_is_named_finds_it_and_no_other_does(served: Served) -> None:
    key = {"x-thinkonce-client-authorization": "Bearer sk-a", "authorization": "Bearer admin"}
    preload(served, line(CHAT), **key)
    api_key = {
        "x-thinkonce-client-api-key": "sk-b",
        "x-thinkonce-client-authorization": "Bearer sk-b",
    }
    preload(served, line(*reversed(BATCHES[2])), **api_key)

    def hits(**headers: str) -> int:
        usage = asked(served, "chat/completions", CHAT, **headers)["usage"]
        return int(usage["prompt_cache_hit_tokens"])

    assert hits(authorization="Bearer admin") == hits(authorization="Bearer sk-b") == 0
    assert hits(authorization="Bearer sk-a") > 0
    assert hits(**{"x-api-key": "sk-a"}) > 0, "it is the same client's"
    assert hits(authorization="sk-a") == 0
    with Anthropic(base_url=served.url, api_key="sk-b", max_retries=0) as client:
        body: Any = {"model": "tiny", **BATCHES[2][1]}
        assert client.messages.create(**body).usage.cache_read_input_tokens


def test_behind_a_gateway_a_tenant_must_be_named(serve: Serve) -> None:
    served = serve(secret=SECRET)
    answer = httpx.post(f"{served.url}/kv/preload", json={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "tenant_needed")
    preload(served, line(CHAT), **{"x-thinkonce-tenant": "t1"})
    for tenant, found in (("t2", False), ("t1", True)):
        gateway = {"x-thinkonce-engine-secret": SECRET, "x-thinkonce-tenant": tenant}
        usage = asked(served, "chat/completions", CHAT, **gateway)["usage"]
        assert (usage["prompt_cache_hit_tokens"] > 0) is found


def test_without_a_gateway_no_tenant_can_be_named(served: Served) -> None:
    answer = httpx.post(f"{served.url}/kv/preload", json={}, headers={"x-thinkonce-tenant": "t"})
    assert answer.status_code == 400
    assert "no gateway asks this server" in answer.json()["error"]["message"]


def test_callers_from_elsewhere_may_not_and_those_with_the_token_may(serve: Serve) -> None:
    served = serve(token="token of the admin")
    assert httpx.post(f"{served.url}/kv/preload", json={}).status_code == 403
    proxied = {"x-forwarded-for": "10.0.0.1", "x-thinkonce-admin-token": "token of the admin"}
    assert preload(served, line(CHAT), **proxied)[0]["stored"]


class Slow:
    """The engine's real reading, each piece of which waits until the test lets it through."""

    def __init__(self, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        assert served.engine.reusing is not None
        self.exact, self.gate = served.engine.reusing, threading.Semaphore(0)
        self.begun, self._at_gate = threading.Event(), threading.Semaphore(0)
        self._real = self.exact.preload
        monkeypatch.setattr(self.exact, "preload", self)

    def __call__(self, *given: Any) -> Iterator[Any]:
        for step in self._real(*given):
            self.begun.set()
            self._at_gate.release()
            assert self.gate.acquire(timeout=60), "the test forgot to open the gate"
            yield step

    def open(self, steps: int = 1000) -> None:
        self.gate.release(steps)

    def wait_for(self, steps: int) -> None:
        """Until so many pieces have come to the gate."""
        assert all(self._at_gate.acquire(timeout=30) for _ in range(steps))


def test_an_answer_goes_before_what_is_read_ahead_which_then_goes_on(
    served: Served, client: OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, rows = Slow(served, monkeypatch), list[dict[str, Any]]()
    body = line({"prompt": LONG}, "completions")
    batch = threading.Thread(target=lambda: rows.extend(preload(served, body, "?progress=true")))
    batch.start()
    assert slow.begun.wait(30)
    slow.open(3)  # the first two blocks
    slow.wait_for(4)
    answers = list[str]()
    asking = threading.Thread(
        target=lambda: answers.append(
            client.completions.create(model="tiny", prompt="Hi", max_tokens=3).choices[0].text
        )
    )
    asking.start()
    assert served.scheduler.wait_until(lambda line: line.waiting > 0, 30)
    slow.open(1)  # the turn that is under way
    asking.join(60)
    assert len(answers) == 1
    assert batch.is_alive(), "it was put back, and waits for the gate"
    slow.open()
    batch.join(60)
    *progress, result, sums = rows
    assert sums["stored"] == 1
    assert result["cached_tokens"] == 0, "what it had kept itself was not known before"
    read = [row["read"] for row in progress]
    assert read.count(read[0]) == 1
    assert read == sorted(read), "it went on where it was"
    stats = httpx.get(f"{served.url}/kv/stats").json()
    assert stats["prefill"]["count"] == result["kept_tokens"] // 64, "nothing was read twice"


def test_a_caller_who_leaves_ends_it_and_what_was_read_stays(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(served, monkeypatch)
    slow.open(3)
    body = line({"prompt": LONG}, "completions") * 3
    with socket.create_connection(served.server._listener.getsockname()) as caller:
        head = b"POST /kv/preload?progress=true HTTP/1.1\r\nhost: localhost\r\n"
        head += b"content-type: application/jsonl\r\ncontent-length: %d\r\n\r\n" % len(body)
        caller.sendall(head + body)
        told = b""
        while b'"read":128' not in told:
            told += caller.recv(4096)
    assert served.scheduler.wait_until(lambda line: all(t.cancelled() for t in line._ahead), 30)
    slow.open(1)  # the turn that is under way
    assert served.scheduler.wait_until(lambda line: line.stats()["ahead"] == 0, 30)
    slow.open()
    result, _ = preload(served, line({"prompt": LONG}, "completions"))
    assert 0 < result["cached_tokens"] < result["kept_tokens"]


def test_the_end_of_the_server_does_not_wait_for_it(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve()
    slow, ended = Slow(served, monkeypatch), list[bytes]()

    def ask() -> None:
        lines = line({"prompt": LONG}, "completions") * 3
        kind = {"content-type": "application/jsonl"}
        answer = httpx.post(f"{served.url}/kv/preload", content=lines, headers=kind, timeout=60)
        ended.append(answer.content)

    asking = threading.Thread(target=ask)
    asking.start()
    assert slow.begun.wait(30)
    served.server.stop()
    slow.open()
    asking.join(30)
    (row,) = ended[0].splitlines()
    assert msgspec.json.decode(row)["status"] == 503


def test_what_finds_no_room_is_not_read_to_its_end(serve: Serve) -> None:
    served = serve(kv=Kv(chunk=64, memory=2**18))  # 1,024 tokens
    result, _ = preload(served, line({"prompt": [9] * 700}, "completions"))
    assert result["status"] == 507, result
    assert 0 < result["kept_tokens"] < result["prompt_tokens"] // 64 * 64
    stats = httpx.get(f"{served.url}/kv/stats").json()
    assert stats["prefill"]["count"] <= result["kept_tokens"] // 64 + 1
    assert stats["slab_bytes"] + stats["memory"]["bytes"] <= stats["memory"]["max_bytes"]


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_of_no_tokens_only_reads_the_prompt(
    served: Served, client: OpenAI, stream: bool
) -> None:
    messages: Any = CHAT["messages"]
    first = client.chat.completions.create(
        model="tiny", messages=messages, max_tokens=0, extra_body={"kv_cache": {"preload": True}}
    )
    assert first.choices[0].message.content == ""
    assert first.choices[0].finish_reason == "length"
    assert first.usage is not None
    assert first.usage.completion_tokens == 0
    if stream:
        chunks = list(
            client.chat.completions.create(
                model="tiny", messages=messages, max_tokens=0, stream=True
            )
        )
        assert chunks[-1].choices[0].finish_reason == "length"
    assert served.generator.begun == []
    usage = client.chat.completions.create(model="tiny", messages=messages, max_tokens=1).usage
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == usage.prompt_tokens // 64 * 64


def test_anthropics_client_warms_with_no_tokens(served: Served) -> None:
    with Anthropic(base_url=served.url, api_key="sk", max_retries=0) as client:
        body: Any = {"model": "tiny", **CHAT}
        first = client.messages.create(max_tokens=0, **body)
        assert (first.content, first.stop_reason) == ([], "max_tokens")
        assert first.usage.cache_creation_input_tokens
        second = client.messages.create(max_tokens=1, **body)
    assert second.usage.cache_read_input_tokens == first.usage.cache_creation_input_tokens


def test_where_nothing_is_kept_nothing_is_read_ahead(serve: Serve) -> None:
    served = serve(kv=Kv(reuse=False))
    result, _ = preload(served, line(CHAT))
    assert "`kv.reuse` is false" in result["error"]
    with client_of(served) as client, pytest.raises(Exception, match="reuse"):
        client.completions.create(model="tiny", prompt=TEXT, max_tokens=0)


def test_a_model_in_this_process_reads_ahead_too(model_folder: Path) -> None:
    messages: Any = CHAT["messages"]
    seen = list[tuple[int, int]]()
    with Engine.open(str(model_folder), ram="64MiB", chunk=64) as engine:

        def stop(read: int, of: int) -> None:
            seen.append((read, of))
            if len(seen) == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            engine.preload(messages, progress=stop)
        done = engine.preload(messages)
        assert done.cached_tokens == seen[-1][0] > 0
        assert done.kept_tokens == seen[-1][1] == done.prompt_tokens // 64 * 64
        assert engine.chat(messages, max_tokens=1).usage.cached_tokens == done.kept_tokens
        with pytest.raises(RequestError, match="`preload` reads"):
            engine.chat(messages, max_tokens=0)
        with pytest.raises(RequestError, match="context holds"):
            engine.preload([{"role": "user", "content": LONG * 20}])


@pytest.mark.parametrize(("url", "body"), BATCHES)
def test_who_asks_for_no_answer_is_told_why_it_was_read_too(
    served: Served, url: str, body: Any
) -> None:
    wanted = {**body, "max_tokens": 0, "kv_cache": {"explain": True}}
    (first,), (again,) = (asked(served, url, wanted)["usage"]["kv_explain"] for _ in range(2))
    assert first["cause"] == "never_seen"
    assert first["memory_tokens"] == 0
    assert again["memory_tokens"] > 0
    assert again["cause"] == "tail_not_stored"
    assert again["missed_tokens"] == 0
