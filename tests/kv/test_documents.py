"""Documents in requests: found in any order, told apart from what is exact, purged by their ids."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from anthropic import Anthropic
from openai import OpenAI
from small_model import Serve, Served, client_of

from thinkonce.cli.app import main
from thinkonce.errors import RequestError
from thinkonce.kv import Engine
from thinkonce.settings import Kv

TEXTS = {
    f"doc-{place}": f"Document {place}: " + " ".join(f"{word} {place}{n}" for n in range(40))
    for place, word in enumerate(("fox", "dog", "capital", "memory"))
}
ASK = "What is the capital of France?"
LINK = {"reuse": "link"}


def part(name: str, **said: Any) -> dict[str, Any]:
    return {"type": "text", "text": TEXTS[name], "kv_cache": {"id": name, **said}}


def message(*names: str, **said: Any) -> dict[str, Any]:
    parts = [part(name, **said) for name in names]
    return {"role": "user", "content": [*parts, {"type": "text", "text": ASK}]}


def chat(client: OpenAI, *names: str, **fields: Any) -> Any:
    body: Any = {"max_tokens": 2, "temperature": 0, **fields}
    return client.chat.completions.create(model="tiny", messages=[message(*names, **LINK)], **body)


def details(answer: Any) -> dict[str, Any]:
    return dict(answer.usage.prompt_tokens_details)


def asked(served: Served, path: str, body: dict[str, Any]) -> Any:
    answer = httpx.post(f"{served.url}{path}", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_documents_in_another_order_are_reused_and_the_answer_says_it_is_not_exact(
    served: Served, client: OpenAI
) -> None:
    first = chat(client, "doc-0", "doc-1", "doc-2")
    again = chat(client, "doc-2", "doc-0", "doc-1")
    assert first.kv_cache["exact"] is again.kv_cache["exact"] is False
    assert first.kv_cache["tokens"].get("link", 0) == 0 < again.kv_cache["tokens"]["link"]
    assert again.usage.kv_exact is False
    rows = httpx.get(f"{served.url}/kv/entries").json()["entries"]
    told = [httpx.get(f"{served.url}/kv/entries/{row['id']}").json() for row in rows]
    assert {"Document" in each["text"] for each in told if "what" in each} == {False}
    assert any("what" in each for each in told), "what documents are read behind says so"
    assert again.usage.prompt_tokens == first.usage.prompt_tokens
    told = details(again)
    assert told["cached_tokens"] == told["exact_tokens"] + told["link_tokens"]
    assert told["cached_tokens"] > again.usage.prompt_tokens / 2
    assert again.kv_cache["recomputed_tokens"] == 48, "16 of each"
    stats = httpx.get(f"{served.url}/kv/stats").json()
    assert stats["by_method"] == again.kv_cache["tokens"]
    page = httpx.get(f"{served.url}/metrics").text
    assert f'kv_reused_tokens_total{{method="link"}} {told["link_tokens"]}.0' in page
    assert "kv_recomputed_tokens_total 96.0" in page


def test_a_stream_says_so_in_its_first_chunk(client: OpenAI) -> None:
    for found in (False, True):
        chunks = list(chat(client, "doc-0", "doc-1", "doc-2", stream=True))
        told = [chunk.kv_cache for chunk in chunks if getattr(chunk, "kv_cache", None)]
        assert told == [chunks[0].kv_cache]
        assert (told[0]["exact"], told[0]["tokens"].get("link", 0) > 0) == (False, found)


def test_answers_without_marked_parts_say_nothing_of_it(client: OpenAI) -> None:
    body: Any = {"max_tokens": 1, "messages": [{"role": "user", "content": ASK}]}
    answer = client.chat.completions.create(model="tiny", **body)
    assert not hasattr(answer, "kv_cache")
    assert {k: v for k, v in details(answer).items() if v is not None} == {"cached_tokens": 0}


def test_a_request_that_says_exact_gets_it_whatever_its_parts_say(client: OpenAI) -> None:
    chat(client, "doc-0", "doc-1", "doc-2")
    found = chat(client, "doc-2", "doc-0", extra_body={"kv_cache": {"reuse": "exact"}})
    assert found.kv_cache["exact"] is True
    assert set(found.kv_cache["tokens"]) == {"exact"}


def test_anthropic_breakpoints_are_exact_until_the_request_names_a_method(served: Served) -> None:
    blocks: Any = [
        {"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}
        for text in list(TEXTS.values())[:3]
    ]
    with Anthropic(base_url=served.url, api_key="none", max_retries=0) as client:

        def ask(order: Any, **extra: Any) -> Any:
            content = [*order, {"type": "text", "text": ASK}]
            turn: Any = [{"role": "user", "content": content}]
            return client.messages.create(model="tiny", max_tokens=1, messages=turn, **extra)

        ask(blocks)
        exact = ask(blocks[::-1])
        assert not hasattr(exact, "kv_cache")
        assert exact.usage.cache_read_input_tokens == 0
        body = {"extra_body": {"kv_cache": LINK}}
        ask([blocks[1], blocks[0], blocks[2]], **body)
        linked = ask([blocks[1], blocks[2], blocks[0]], **body)
        assert linked.kv_cache["exact"] is linked.usage.kv_exact is False
        assert linked.usage.cache_read_input_tokens > 100


def test_explain_names_chunks_found_and_moved_and_computed_again(served: Served) -> None:
    body = {"messages": [message("doc-0", "doc-1", "doc-2", **LINK)], "max_tokens": 1}
    asked(served, "/v1/chat/completions", body)
    body["messages"] = [message("doc-3", "doc-1", "doc-0", **LINK)]
    told = asked(served, "/kv/explain", body)["prompts"][0]
    assert (told["method"], told["why_exact"]) == ("link 16", None)
    new, one, zero = told["chunks"]
    assert [new["document"], one["document"], zero["document"]] == ["doc-3", "doc-1", "doc-0"]
    assert (new["cause"], new["memory_tokens"]) == ("never_seen", 0)
    assert (one["cause"], one["memory_tokens"]) == (None, one["tokens"])
    assert (zero["recomputed"], zero["was"] < zero["start"]) == (16, True)
    fidelity = told["fidelity"]
    assert fidelity["setting"] == "link 16"
    assert fidelity["steps"] == ["link 16", "link 32", "link 64", "exact"]
    assert (fidelity["verdict"], fidelity["audits"], fidelity["kl"]) == ("open", 0, None)
    assert (fidelity["bound_agreement"], fidelity["bound_kl"]) == (0.95, 0.05)
    ran = asked(served, "/v1/chat/completions", {**body, "kv_cache": {"explain": True}})
    (there,) = ran["usage"]["kv_explain"]
    same = ("fidelity", "method", "chunks", "memory_tokens", "missed_tokens", "cause")
    assert {name: there[name] for name in same} == {name: told[name] for name in same}


def test_the_commands_tell_what_became_of_documents(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    body = {"messages": [message("doc-0", "doc-1", "doc-2", **LINK)], "max_tokens": 1}
    asked(served, "/v1/chat/completions", body)
    asked(served, "/v1/chat/completions", body)
    assert main(["kv", "stats", "--url", served.url]) == 0
    assert "by link, approximately" in capsys.readouterr().out
    body["messages"] = [message("doc-3", "doc-1", "doc-0", **LINK)]
    (tmp_path / "request.json").write_text(json.dumps(body))
    assert main(["kv", "explain", "request.json", "--url", served.url]) == 0
    out = capsys.readouterr().out
    assert "served now: link 16, of link 16 -> link 32 -> link 64 -> exact; no audit" in out
    assert "marked parts, by link 16, which is approximate:" in out
    assert re.search(r"doc-3: 0 of \d+ tokens found, the others: never_seen", out)
    assert re.search(r"doc-0: (\d+) of \1 tokens found, moved from \d+ to \d+, 16 computed", out)
    body["messages"] = [message("doc-3", **LINK), {"role": "user", "content": ASK * 200}]
    (tmp_path / "request.json").write_text(json.dumps(body))
    assert main(["kv", "explain", "request.json", "--url", served.url]) == 0
    assert "marked parts are read exactly: more than half of it" in capsys.readouterr().out


@pytest.mark.parametrize("rule", [{"document": "doc-1"}, {"tags": ["doc-1"]}])
def test_a_document_is_purged_by_its_id(served: Served, client: OpenAI, rule: Any) -> None:
    chat(client, "doc-0", "doc-1", "doc-2")
    before = details(chat(client, "doc-1", "doc-0", "doc-2"))["link_tokens"]
    assert asked(served, "/kv/purge", rule)["purged"] > 0
    after = details(chat(client, "doc-1", "doc-0", "doc-2"))
    assert 0 < after["link_tokens"] < before
    assert asked(served, "/kv/purge", {"document": "doc-9"})["purged"] == 0


def test_documents_are_read_ahead(client: OpenAI) -> None:
    assert not chat(client, "doc-0", "doc-1", "doc-2", max_tokens=0).choices[0].message.content
    assert chat(client, "doc-1", "doc-2", "doc-0").kv_cache["tokens"]["link"] > 100


def test_clients_with_other_keys_share_no_document(served: Served) -> None:
    for key in ("one", "two"):
        with OpenAI(base_url=f"{served.url}/v1", api_key=key, max_retries=0) as client:
            assert details(chat(client, "doc-0", "doc-1", "doc-2"))["link_tokens"] == 0
            assert details(chat(client, "doc-1", "doc-0", "doc-2"))["link_tokens"] > 100


def test_the_setting_holds_for_documents_with_an_id_alone(serve: Serve) -> None:
    with client_of(serve(kv=Kv(chunk=64, method="link"))) as client:
        for _ in range(2):
            turn: Any = [message("doc-0", "doc-1", "doc-2")]
            found: Any = client.chat.completions.create(model="tiny", messages=turn, max_tokens=1)
        assert found.kv_cache["exact"] is False
        part: Any = {"type": "text", "text": TEXTS["doc-0"], "cache_control": {"type": "ephemeral"}}
        turn = [{"role": "user", "content": [part]}]
        found = client.chat.completions.create(model="tiny", messages=turn, max_tokens=1)
        assert not hasattr(found, "kv_cache")


def test_link_may_compute_nothing_of_a_document_again(serve: Serve) -> None:
    """What stands in front of it when it is encoded took the sink, and was dropped."""
    with client_of(serve(kv=Kv(chunk=64, link_tokens=0))) as client:
        chat(client, "doc-0", "doc-1", "doc-2")
        body = {"extra_body": {"kv_cache": {"explain": True}}}
        found = chat(client, "doc-2", "doc-0", "doc-1", **body)
    assert (found.kv_cache["exact"], found.kv_cache["recomputed_tokens"]) == (False, 0)
    (told,) = found.usage.kv_explain
    assert told["method"] == "link 0"
    assert told["fidelity"]["steps"] == ["link 0", "link 16", "link 32", "link 64", "exact"]
    assert all(chunk["memory_tokens"] == chunk["tokens"] for chunk in told["chunks"])


# -- in a process --------------------------------------------------------------------------------


def test_an_engine_takes_documents_and_purges_them_on_disk_too(
    model_folder: Path, tmp_path: Path
) -> None:
    where: Any = {"disk": str(tmp_path / "kv"), "chunk": 64}
    documents = [{"id": name, "text": text} for name, text in TEXTS.items()]
    question = [{"role": "user", "content": ASK}]

    def ask(engine: Engine, order: Any, reuse: Any = "link") -> Any:
        given = [documents[place] for place in order]
        said: Any = {"max_tokens": 2, "temperature": 0}
        return engine.chat(question, documents=given, reuse=reuse, **said)

    with Engine.open(str(model_folder), **where) as engine:
        first = ask(engine, (0, 1, 2))
        again = ask(engine, (2, 1, 0))
        assert (first.usage.exact, again.usage.exact) == (False, False)
        assert again.usage.by_method["link"] > 200
        assert [chunk.document for chunk in again.explain.chunks] == ["doc-2", "doc-1", "doc-0"]
        exact = ask(engine, (2, 1, 0), "exact")
        assert exact.usage.exact
        assert exact.usage.prompt_tokens == again.usage.prompt_tokens
    with Engine.open(str(model_folder), **where) as engine:
        found = ask(engine, (1, 0, 2))
        assert sum(chunk.disk_tokens for chunk in found.explain.chunks) > 200
        assert engine.purge(document="doc-1") > 0
        (gone, *others) = ask(engine, (1, 0, 2)).explain.chunks
        assert gone.memory_tokens == gone.disk_tokens == 0
        assert all(each.memory_tokens == each.tokens for each in others)


def test_documents_that_cannot_be_are_named(model_folder: Path) -> None:
    with Engine.open(str(model_folder)) as engine:
        with pytest.raises(RequestError, match=r"documents\[0\]"):
            engine.chat([{"role": "user", "content": ASK}], documents=[{"name": "x"}])
        with pytest.raises(RequestError, match="no message of the user"):
            engine.chat([{"role": "system", "content": ASK}], documents=["x"])
        with pytest.raises(RequestError, match=r"kv_cache\.reuse.*`schema`"):
            engine.chat([{"role": "user", "content": ASK}], documents=["x"], reuse="modules")  # type: ignore[arg-type]
