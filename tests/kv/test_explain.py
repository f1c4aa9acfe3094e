"""Why a prompt was read again: the cause that is told is the one that took the block."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from openai import OpenAI
from small_model import Serve, Served, client_of

from thinkonce.kv.prefix.blocks import Block, packed
from thinkonce.kv.prefix.ghosts import Ghosts
from thinkonce.kv.prefix.owner import NOBODY, Owner
from thinkonce.kv.weights.model import Model

TEXT = "The quick brown fox jumps over the lazy dog. " * 12


def ask(client: OpenAI, text: Any, **kv_cache: Any) -> None:
    client.completions.create(
        model="tiny", prompt=text, max_tokens=1, extra_body={"kv_cache": kv_cache}
    )


def explain(served: Served, text: Any, key: str = "", **kv_cache: Any) -> dict[str, Any]:
    body = {"prompt": text, "max_tokens": 1, "kv_cache": kv_cache}
    return explained(served, body, key)


def explained(served: Served, body: Any, key: str) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    answer = httpx.post(f"{served.url}/kv/explain", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    (found,) = answer.json()["prompts"]
    return dict(found)


def chat(client: OpenAI, messages: Any, **kv_cache: Any) -> dict[str, Any]:
    """What is told of the reading, where that was asked for."""
    answer = client.chat.completions.create(
        model="tiny", messages=messages, max_tokens=1, extra_body={"kv_cache": kv_cache}
    )
    assert answer.usage is not None
    (told,) = (answer.usage.model_extra or {}).get("kv_explain", [{}])
    return dict(told)


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


def test_the_first_difference_is_told_by_message_character_and_token(
    served: Served, client: OpenAI
) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": TEXT}]
    chat(client, messages)
    at = TEXT.index("lazy", 200)
    messages[1] = {"role": "user", "content": TEXT[:at] + "h" + TEXT[at + 1 :]}
    found = explained(served, {"messages": messages, "max_tokens": 1}, key_of(client))
    assert found["cause"] == "content"
    assert found["missed_tokens"] > 0
    difference = found["difference"]
    assert (difference["message"], difference["character"]) == (1, at)
    assert "over the lazy dog" in difference["known"]
    assert "over the hazy dog" in difference["asked"]
    assert found["memory_tokens"] <= difference["token"] < found["memory_tokens"] + 64


def test_bodies_of_messages_are_read_as_they_are_answered(served: Served, client: OpenAI) -> None:
    body = {
        "model": "tiny",
        "system": "Be brief.",
        "max_tokens": 1,
        "messages": [{"role": "user", "content": [{"type": "text", "text": TEXT}]}],
        "kv_cache": {"explain": True},
    }
    headers = {"authorization": f"Bearer {client.api_key}"}
    first = httpx.post(f"{served.url}/v1/messages", json=body, headers=headers).json()
    (ran,) = first["usage"]["kv_explain"]
    assert (ran["cause"], ran["memory_tokens"]) == ("never_seen", 0)
    assert explained(served, body, key_of(client))["cause"] == "tail_not_stored"
    changed = {**body, "system": "Be short."}
    found = explained(served, changed, key_of(client))
    assert (found["cause"], found["difference"]["message"]) == ("content", 0)


def test_an_answer_tells_of_its_own_reading_and_not_of_what_it_left_behind(
    served: Served, client: OpenAI
) -> None:
    told = [chat(client, [{"role": "user", "content": TEXT}], explain=True) for _ in range(2)]
    assert [each["cause"] for each in told] == ["never_seen", "tail_not_stored"]
    assert told[0]["memory_tokens"] == 0 < told[1]["memory_tokens"]
    assert all(each["seconds"]["compute"] > 0 for each in told)


def test_a_stream_tells_it_in_its_usage(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": TEXT}],
        max_tokens=1,
        stream=True,
        extra_body={"kv_cache": {"explain": True}},
    )
    usages = [chunk.usage for chunk in stream if chunk.usage is not None]
    (told,) = usages[-1].model_extra["kv_explain"]  # type: ignore[index]
    assert told["cause"] == "never_seen"


def test_who_is_no_admin_learns_nothing_of_other_tenants(served: Served, client: OpenAI) -> None:
    chat(client, [{"role": "user", "content": TEXT}])
    with client_of(served) as other:
        other.api_key = "sk-other"
        told = chat(other, [{"role": "user", "content": TEXT}], explain=True)
    assert (told["cause"], told["difference"]) == ("never_seen", None)


def test_who_only_names_a_tenant_is_told_the_cause_and_no_text(serve: Serve) -> None:
    served = serve(secret="s" * 64)
    gateway = {"x-thinkonce-engine-secret": "s" * 64, "x-thinkonce-tenant": "t"}
    body = {"prompt": TEXT, "max_tokens": 1}
    url = f"{served.url}/v1/completions"
    httpx.post(url, json=body, headers=gateway).raise_for_status()
    changed = {**body, "prompt": TEXT[:-80] + "x" + TEXT[-79:]}
    told = []
    for headers in (gateway, {"x-thinkonce-tenant": "t"}):
        answer = httpx.post(f"{served.url}/kv/explain", json=changed, headers=headers)
        told.append(answer.json()["prompts"][0])
    assert [each["cause"] for each in told] == ["content", "content"]
    assert told[0]["difference"] is not None
    assert told[1]["difference"] is None


def test_the_same_text_in_other_tokens_is_told_and_only_equal_blocks_are_loaded(
    served: Served, client: OpenAI, model: Model
) -> None:
    tokens = list(model.tokenizer(TEXT)["input_ids"])
    ask(client, tokens)
    at = next(n for n in range(70, 127) if len(model.tokenizer.decode([tokens[n]])) > 1)
    text = model.tokenizer.decode([tokens[at]])
    halves = [model.tokenizer(part)["input_ids"] for part in (text[:1], text[1:])]
    cut = [*tokens[:at], *halves[0], *halves[1], *tokens[at + 1 :]]
    found = explain(served, cut, key_of(client))
    assert (found["cause"], found["memory_tokens"]) == ("tokenizer_boundary", 64)
    assert found["difference"]["token"] == at
    assert found["missed_tokens"] >= 64


def test_of_a_purged_text_nothing_is_shown(served: Served, client: OpenAI) -> None:
    ask(client, TEXT)
    httpx.post(f"{served.url}/kv/purge", json={"all": True}).raise_for_status()
    found = explain(served, TEXT.replace("lazy", "hazy", 1), key_of(client))
    assert found["difference"] is None
    assert served.engine.index is not None
    assert served.engine.index.ghosts is not None
    assert served.engine.index.ghosts.kept_bytes == 0


def test_a_wrong_path_is_told_which_there_are(served: Served) -> None:
    for path in ("/", "/v1/nothing", "/kv"):
        answer = httpx.get(f"{served.url}{path}")
        assert answer.status_code == 404
        message = answer.json()["error"]["message"]
        for known in ("/chat/completions", "/kv/explain", "/healthz", "/metrics"):
            assert known in message


def test_ghosts_are_bounded() -> None:
    ghosts = Ghosts(most=2)
    blocks = [Block(name, b"root", b"1234") for name in (b"a", b"b", b"c")]
    for block in blocks:
        ghosts.gone(block, NOBODY, "evicted")
    assert ghosts.find(b"a") is None
    assert ghosts.find(b"c") is not None


def test_tokens_of_what_is_gone_are_bounded_and_whoever_has_most_loses_first() -> None:
    ghosts = Ghosts(max_bytes=10_000)
    one, many = Owner("one"), Owner("many")
    ghosts.gone(block_of(0), one, "evicted")
    for number in range(1, 100):
        ghosts.gone(block_of(number), many, "evicted")
    assert ghosts.kept_bytes <= 10_000
    assert ghosts.following(b"root", one, 9), "another tenant's do not push it out"
    assert [known.block for known in ghosts.following(b"root", many, 1)] == [block_of(99)]


def test_owners_of_a_beginning_are_the_latest_and_go_with_a_purge() -> None:
    ghosts = Ghosts(most=3)
    first = block_of(1)
    for number in range(5):
        ghosts.here(first, Owner(f"t{number}"), is_first=True)
    ghosts.here(block_of(2), Owner("t9"))
    ghosts.here(first, Owner("t4", namespace="n"), is_first=True)
    own, others = ghosts.owners(first.tokens, "t4")
    assert own == [Owner("t4", namespace="n"), Owner("t4")]
    assert others == [Owner("t3")], "three are remembered"
    ghosts.purge(lambda owner: owner.tenant == "t4")
    assert ghosts.owners(first.tokens, "t4") == ([], [Owner("t3")])


def test_tokens_of_what_was_to_live_for_a_time_or_was_purged_are_not_kept() -> None:
    ghosts = Ghosts()
    ghosts.gone(block_of(1), NOBODY, "evicted", until=5.0)
    ghosts.gone(block_of(2), NOBODY, "purged")
    assert ghosts.kept_bytes == 0
    ghosts.gone(block_of(3), NOBODY, "evicted")
    ghosts.ended(block_of(4), NOBODY)
    assert len(ghosts.following(b"root", NOBODY, 9)) == 2
    assert ghosts.following(b"root", Owner("other"), 9) == []
    ghosts.purge(NOBODY.__eq__)
    assert ghosts.following(b"root", NOBODY, 9) == []


def block_of(number: int) -> Block:
    return Block(number.to_bytes(16, "little"), b"root", packed([number] * 64))
