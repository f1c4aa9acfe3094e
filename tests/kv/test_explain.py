"""Why a prompt was read again: the cause that is told is the one that took the block."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from openai import OpenAI
from small_model import Served

from thinkonce.kv.prefix.blocks import Block
from thinkonce.kv.prefix.ghosts import Ghosts
from thinkonce.kv.prefix.owner import NOBODY

TEXT = "The quick brown fox jumps over the lazy dog. " * 12


def ask(client: OpenAI, text: str, **kv_cache: Any) -> None:
    client.completions.create(
        model="tiny", prompt=text, max_tokens=1, extra_body={"kv_cache": kv_cache}
    )


def explain(served: Served, text: str, key: str = "", **kv_cache: Any) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    body = {"prompt": text, "max_tokens": 1, "kv_cache": kv_cache}
    answer = httpx.post(f"{served.url}/kv/explain", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    (found,) = answer.json()["prompts"]
    return dict(found)


def key_of(client: OpenAI) -> str:
    return str(client.api_key)


def test_a_known_prompt_lacks_its_tail_alone(served: Served, client: OpenAI) -> None:
    assert explain(served, TEXT, key_of(client))["cause"] == "never_seen"
    ask(client, TEXT)
    found = explain(served, TEXT, key_of(client))
    assert found["cause"] == "tail_not_stored"
    assert 0 < found["memory_tokens"] < found["prompt_tokens"]


def test_looking_changes_nothing(served: Served, client: OpenAI) -> None:
    explain(served, TEXT, key_of(client))
    assert httpx.get(f"{served.url}/kv/stats").json()["prompts"] == 0
    assert explain(served, TEXT, key_of(client))["cause"] == "never_seen"


def test_a_short_prompt_and_one_that_may_not_read_say_so(served: Served) -> None:
    assert explain(served, "Hi")["cause"] == "too_short"
    assert explain(served, TEXT, enabled=False)["cause"] == "bypass"


def test_of_another_ones_prompt_only_that_it_exists_is_told(served: Served, client: OpenAI) -> None:
    ask(client, TEXT)
    found = explain(served, TEXT, "sk-other")
    assert (found["cause"], found["difference"]) == ("other_tenant", None)
    found = explain(served, TEXT.replace("lazy", "idle"), "sk-other")
    assert (found["cause"], found["difference"]) == ("never_seen", None), (
        "no text leaks by likeness"
    )


def test_names_that_keep_one_tenants_prompts_apart_are_told(served: Served, client: OpenAI) -> None:
    ask(client, TEXT)
    found = explain(served, TEXT, key_of(client), namespace="n", tags=["v1"])
    assert (found["cause"], found["fields"]) == ("salt", ["namespace", "tags"])


def test_what_was_purged_is_told_also_after_a_second_purge(served: Served, client: OpenAI) -> None:
    for _ in range(2):
        ask(client, TEXT)
        assert explain(served, TEXT, key_of(client))["memory_tokens"] > 0
        httpx.post(f"{served.url}/kv/purge", json={"all": True}).raise_for_status()
        found = explain(served, TEXT, key_of(client))
        assert (found["cause"], found["memory_tokens"]) == ("purged", 0)


def test_what_made_room_was_evicted(served: Served, client: OpenAI) -> None:
    ask(client, TEXT)
    stats = httpx.get(f"{served.url}/kv/stats").json()
    usual, least = stats["memory"]["max_bytes"], stats["bytes_a_token"] * stats["chunk_tokens"]
    for memory in (least, usual):
        httpx.post(f"{served.url}/kv/limits", json={"memory": memory}).raise_for_status()
    found = explain(served, TEXT, key_of(client))
    assert found["cause"] == "evicted"
    assert found["ago"] >= 0


def test_a_chat_is_explained_as_it_is_answered(served: Served, client: OpenAI) -> None:
    messages: list[Any] = [{"role": "user", "content": TEXT}]
    client.chat.completions.create(model="tiny", messages=messages, max_tokens=1)
    answer = client.chat.completions.create(model="tiny", messages=messages, max_tokens=1)
    body = {"messages": messages, "max_tokens": 1}
    headers = {"authorization": f"Bearer {client.api_key}"}
    (found,) = httpx.post(f"{served.url}/kv/explain", json=body, headers=headers).json()["prompts"]
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    assert found["memory_tokens"] == answer.usage.prompt_tokens_details.cached_tokens > 0
    assert found["prompt_tokens"] == answer.usage.prompt_tokens


@pytest.mark.parametrize("path_header", ["origin", "x-forwarded-for"])
def test_only_callers_on_this_machine_may_look(served: Served, path_header: str) -> None:
    answer = httpx.post(
        f"{served.url}/kv/explain", json={"prompt": TEXT}, headers={path_header: "http://a.example"}
    )
    assert answer.status_code == 403


def test_ghosts_are_bounded() -> None:
    ghosts = Ghosts(most=2)
    blocks = [Block(name, b"root", b"1234") for name in (b"a", b"b", b"c")]
    for block in blocks:
        ghosts.gone(block, NOBODY, "evicted")
    assert ghosts.find(b"a") is None
    assert ghosts.find(b"c") is not None
