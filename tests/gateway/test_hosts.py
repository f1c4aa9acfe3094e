"""Pages that give their own name this machine's address: a gateway without keys is not theirs."""

from __future__ import annotations

import json

import pytest

from gateway.conftest import CHAT, Stage
from thinkonce.errors import ConfigError
from thinkonce.settings import Gateway, Settings
from thinkonce.settings.check import check
from thinkonce.web.hosts import foreign_host


@pytest.fixture
def way(all_ways: str) -> str:
    """A hit must be refused as a miss is, whoever answers it."""
    return all_ways


async def test_a_page_under_another_name_gets_no_answer_and_no_hit(stage: Stage) -> None:
    gateway = await stage.gateway()
    for _ in range(3):
        assert (await gateway.chat()).status == 200
    asked = len(stage.upstream.seen)
    for name in ("evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.nip.io"):
        for question in ("hi", "something new"):
            refused = await gateway.chat(question, {"host": name})
            assert refused.status == 403
            assert name in json.loads(refused.body)["error"]["message"]
    assert (await gateway.get("/v1/models", {"host": "evil.example"})).status == 403
    assert len(stage.upstream.seen) == asked


async def test_names_and_addresses_of_this_machine_are_served(stage: Stage) -> None:
    gateway = await stage.gateway()
    names = ("localhost", "LocalHost:80", "a.localhost", "127.0.0.1", "[::1]:8000", "192.0.2.7",
             "host.docker.internal:8000")  # fmt: skip
    for name in names:
        assert (await gateway.chat(headers={"host": name})).status == 200


async def test_a_credential_shows_that_no_page_asks(stage: Stage) -> None:
    gateway = await stage.gateway()
    for headers in ({"authorization": "Bearer sk-mine"}, {"x-api-key": "sk-mine"}):
        assert (await gateway.chat(headers={"host": "llm.corp", **headers})).status == 200
    empty = {"host": "llm.corp", "authorization": ""}
    assert (await gateway.send("POST", CHAT, b"{}", empty)).status == 403


async def test_hosts_names_what_else_the_gateway_is_called(stage: Stage) -> None:
    gateway = await stage.gateway(gateway={"hosts": ["llm.corp"]})
    assert (await gateway.chat(headers={"host": "LLM.corp:8000"})).status == 200
    assert (await gateway.chat(headers={"host": "other.corp"})).status == 403


async def test_a_gateway_for_others_is_asked_by_any_name(stage: Stage) -> None:
    gateway = await stage.gateway(gateway={"host": "0.0.0.0"})
    assert (await gateway.chat(headers={"host": "llm.corp"})).status == 200


@pytest.mark.parametrize("name", ["", "LLM.corp", "llm.corp:8000", "https://llm.corp", "*.corp"])
def test_a_name_that_no_host_could_equal_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="hosts"):
        check(Settings(gateway=Gateway(hosts=[name])))


def test_a_host_that_cannot_be_read_is_foreign_and_none_at_all_is_no_browser_s() -> None:
    assert foreign_host([(b"host", b"[::1")], (), ()) == "[::1"
    assert foreign_host([], (), ()) == ""
