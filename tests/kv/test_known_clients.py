"""A model server that knows its clients: who may ask, how much, and who shares with whom."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anthropic
import httpx
import openai
import pytest
from small_model import Serve, Served

from thinkonce.errors import ConfigError
from thinkonce.kv.serving.clients import Access
from thinkonce.settings import Client

SECRET = "s" * 32
LONG = "the same words again and again " * 20


def known(key: str, **limits: Any) -> Client:
    return Client(key_sha256=hashlib.sha256(key.encode()).hexdigest(), **limits)


@contextmanager
def client_with(served: Served, key: str) -> Iterator[openai.OpenAI]:
    url = f"{served.url}/v1"
    with openai.OpenAI(base_url=url, api_key=key, max_retries=0, timeout=60) as client:
        yield client


def ask(served: Served, key: str, text: str = "hello", **more: Any) -> Any:
    messages: Any = [{"role": "user", "content": text}]
    with client_with(served, key) as client:
        return client.chat.completions.create(model="tiny", messages=messages, max_tokens=2, **more)


def cached(answer: Any) -> int:
    return int(answer.usage.prompt_tokens_details.cached_tokens)


def test_an_unknown_key_is_refused_and_a_known_one_answered(serve: Serve) -> None:
    served = serve(clients={"alice": known("tk-a")})
    assert ask(served, "tk-a").choices
    with pytest.raises(openai.AuthenticationError) as refused:
        ask(served, "tk-b")
    assert refused.value.code == "invalid_api_key"
    assert refused.value.response.headers["www-authenticate"] == "Bearer"


def test_without_any_key_nothing_is_told_but_whether_it_is_well(serve: Serve) -> None:
    served = serve(clients={"alice": known("tk-a")}, token="admin-token")
    for path in ("/v1/models", "/kv/stats", "/v1/models/tiny", "/nowhere"):
        assert httpx.get(served.url + path).status_code == 401, path
    assert httpx.get(f"{served.url}/healthz").status_code == 200
    assert httpx.get(f"{served.url}/metrics").status_code == 200
    asked = httpx.get(f"{served.url}/v1/models", headers={"authorization": "Bearer tk-a"})
    assert asked.json()["data"][0]["id"] == "tiny"
    admin = {"x-thinkonce-admin-token": "admin-token"}
    assert httpx.get(f"{served.url}/kv/stats", headers=admin).json()["reuse"] is True
    assert httpx.get(f"{served.url}/v1/models", headers=admin).status_code == 401


def test_either_way_of_anthropic_to_show_a_key_is_known(serve: Serve) -> None:
    served = serve(clients={"alice": known("tk-a")})
    for shown in ({"api_key": "tk-a"}, {"auth_token": "tk-a"}):
        with anthropic.Anthropic(base_url=served.url, max_retries=0, **shown) as client:
            answer = client.messages.create(
                model="tiny", max_tokens=2, messages=[{"role": "user", "content": "hello"}]
            )
        assert answer.usage.output_tokens
    with (
        anthropic.Anthropic(base_url=served.url, max_retries=0, api_key="tk-b") as client,
        pytest.raises(anthropic.AuthenticationError),
    ):
        client.messages.create(
            model="tiny", max_tokens=2, messages=[{"role": "user", "content": "hello"}]
        )


def test_clients_of_one_group_share_and_no_others(serve: Serve) -> None:
    group = {"group": "support"}
    served = serve(
        clients={"a": known("tk-a", **group), "b": known("tk-b", **group), "c": known("tk-c")}
    )
    assert cached(ask(served, "tk-a", LONG)) == 0
    assert cached(ask(served, "tk-b", LONG)) > 0
    assert cached(ask(served, "tk-c", LONG)) == 0
    assert cached(ask(served, "tk-c", LONG)) > 0


def test_a_model_that_is_not_the_clients_is_refused(serve: Serve) -> None:
    served = serve(clients={"a": known("tk-a", models=["large-*"])})
    with pytest.raises(openai.PermissionDeniedError) as refused:
        ask(served, "tk-a")
    assert refused.value.code == "model_not_allowed"


def test_requests_beyond_the_minutes_allowance_wait_for_the_next(serve: Serve) -> None:
    served = serve(clients={"a": known("tk-a", rate_limit=2), "b": known("tk-b")})
    ask(served, "tk-a"), ask(served, "tk-a")
    with pytest.raises(openai.RateLimitError) as refused:
        ask(served, "tk-a")
    assert refused.value.code == "rate_limit_exceeded"
    assert 1 <= int(refused.value.response.headers["retry-after"]) <= 30
    assert ask(served, "tk-b").choices, "another's allowance is its own"


def test_a_place_under_way_is_given_back_with_the_answer(serve: Serve) -> None:
    served = serve(clients={"a": known("tk-a", max_concurrent=1)})
    served.generator.gate.clear()
    got: list[Any] = []
    first = threading.Thread(target=lambda: got.append(ask(served, "tk-a")))
    first.start()
    assert served.scheduler.wait_until(lambda line: line.running, 30)
    with pytest.raises(openai.RateLimitError) as refused:
        ask(served, "tk-a")
    assert refused.value.code == "concurrency_limit_exceeded"
    served.generator.gate.set()
    first.join(30)
    assert got
    assert ask(served, "tk-a").choices


def test_the_gateway_needs_no_key_of_its_own_where_clients_are_known(serve: Serve) -> None:
    served = serve(clients={"a": known("tk-a")}, secret=SECRET)
    body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
    url = f"{served.url}/v1/chat/completions"
    gateway = {"x-thinkonce-engine-secret": SECRET, "x-thinkonce-tenant": "t1"}
    assert httpx.post(url, json=body, headers=gateway).status_code == 200
    assert httpx.post(url, json=body).status_code == 401
    assert httpx.post(url, json=body, headers={"api-key": "tk-a"}).status_code == 200
    forged = {"x-thinkonce-tenant": "t1", "authorization": "Bearer tk-a"}
    assert httpx.post(url, json=body, headers=forged).status_code == 403


def test_many_credentials_are_refused_unread(serve: Serve) -> None:
    served = serve(clients={"a": known("tk-a")})
    body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
    many = [("api-key", f"guess-{number}") for number in range(50)] + [("api-key", "tk-a")]
    asked = httpx.post(f"{served.url}/v1/chat/completions", json=body, headers=many)
    assert asked.status_code == 401


def test_an_administrator_explains_for_a_known_client_by_its_key(serve: Serve) -> None:
    served = serve(clients={"a": known("tk-a")}, token="admin-token")
    assert cached(ask(served, "tk-a", LONG)) == 0
    told = httpx.post(
        f"{served.url}/kv/explain",
        json={"messages": [{"role": "user", "content": LONG}]},
        headers={
            "x-thinkonce-admin-token": "admin-token",
            "x-thinkonce-client-authorization": "Bearer tk-a",
        },
    ).json()
    assert told["prompts"][0]["memory_tokens"] > 0


def test_who_is_revoked_is_refused_from_the_reload_on_and_others_go_on_as_they_were(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    staying = known("tk-stays", rate_limit=1)
    served = serve(clients={"a": known("tk-a"), "stays": staying}, token="admin-token")
    assert ask(served, "tk-a").choices
    assert ask(served, "tk-stays").choices
    written = {"b": known("tk-b"), "stays": staying}
    monkeypatch.setattr(served.server, "_read_access", lambda: Access(written, "another-token"))
    served.server.reload()
    with pytest.raises(openai.AuthenticationError):
        ask(served, "tk-a")
    assert ask(served, "tk-b").choices
    with pytest.raises(openai.RateLimitError):
        ask(served, "tk-stays")
    for token, status in (("admin-token", 403), ("another-token", 200)):
        headers = {"x-thinkonce-admin-token": token, "content-type": "application/json"}
        purged = httpx.post(f"{served.url}/kv/purge", content=b'{"all": true}', headers=headers)
        assert purged.status_code == status, token


def test_what_cannot_be_read_again_leaves_everybody_as_he_was(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve(clients={"a": known("tk-a")})

    def torn() -> Access:
        raise ConfigError("clients.a.key_sha256", "half", "64 hex digits")

    monkeypatch.setattr(served.server, "_read_access", torn)
    served.server.reload()
    assert ask(served, "tk-a").choices
    with pytest.raises(openai.AuthenticationError):
        ask(served, "tk-b")
    assert "clients stay as they were: clients.a.key_sha256='half' does not work" in caplog.text
