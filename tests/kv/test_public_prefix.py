"""Beginnings that a server declares public: shared by all, and nothing behind them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_model import Serve, Served

from thinkonce import ConfigError
from thinkonce.kv.prefix.chain import Chain, chain_of
from thinkonce.kv.prefix.owner import Owner
from thinkonce.kv.prefix.prompt import Prompt, Span
from thinkonce.kv.prefix.public import PUBLIC, PublicPrefixes
from thinkonce.kv.serving.admin.public import public_prefixes
from thinkonce.kv.weights.model import Model
from thinkonce.settings import Kv

SYSTEM = {"role": "system", "content": "Answer in one short line, and never guess. " * 8}
SECRET = {"role": "user", "content": "My own words, that nobody else may learn of. " * 8}
TOKENS = st.lists(st.integers(0, 3), max_size=14)
OWNERS = [Owner("a"), Owner("b"), Owner("a", namespace="n"), Owner("a", tags=("t",))]


def file_of(folder: Path, name: str = "public.json", **said: Any) -> str:
    path = folder / name
    path.write_text(json.dumps(said))
    return str(path)


def ask(served: Served, key: str, *messages: dict[str, str], **kv_cache: Any) -> dict[str, Any]:
    answer = httpx.post(
        f"{served.url}/v1/chat/completions",
        json={"messages": messages, "max_tokens": 1, "kv_cache": {"explain": True, **kv_cache}},
        headers={"authorization": f"Bearer {key}"},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["usage"])


def cached(usage: dict[str, Any]) -> int:
    return int(usage["prompt_tokens_details"]["cached_tokens"])


def purge(served: Served, **rule: Any) -> None:
    assert httpx.post(f"{served.url}/kv/purge", json=rule, timeout=60).status_code == 200


def read_ahead(served: Served) -> None:
    assert served.scheduler.wait_until(lambda line: not line.stats()["ahead"], 60)
    assert served.scheduler.wait_until(lambda line: not line.running, 60)


@given(prompt=TOKENS, public=st.lists(TOKENS, max_size=3), size=st.integers(1, 4))
def test_blocks_are_everybodys_as_far_as_they_lie_within_what_is_public_and_no_further(
    prompt: list[int], public: list[list[int]], size: int
) -> None:
    def chain(owner: Owner, prefixes: list[list[int]]) -> Chain:
        shared = PublicPrefixes(prefixes)
        return chain_of(Prompt.of(tuple(prompt)), size, b"f" * 32, owner, lambda o: o, shared)

    chains = [chain(owner, public) for owner in OWNERS]
    ends = range(size, len(prompt) + 1, size)
    within = sum(any(each[:end] == prompt[:end] for each in public) for end in ends)
    for each, owner in zip(chains, OWNERS, strict=True):
        assert each.public == within
        assert list(each.owners) == [PUBLIC] * within + [owner] * (len(each) - within)
        assert [block.tokens for block in each.blocks] == [
            block.tokens for block in chain(owner, []).blocks
        ]
    ids = [[block.id for block in each.blocks] for each in chains]
    assert all(each[:within] == ids[0][:within] for each in ids)
    private = [name for each in ids for name in each[within:]]
    assert len(set(private)) == len(private), "nothing behind it has another owner's name"


def test_a_marked_document_within_it_is_its_owners() -> None:
    prompt = Prompt.of(tuple(range(12)))
    marked = Prompt(tuple(prompt), (Span(5, 9, "exact", "doc"),))
    shared = PublicPrefixes([tuple(range(12))])
    called = chain_of(marked, 2, b"f" * 32, Owner("a"), lambda owner: owner, shared)
    assert called.public == 2
    assert called.owners[2].documents == ("doc",)


def test_all_tenants_hit_it_from_the_first_request_on_and_nothing_behind_it(
    serve: Serve, tmp_path: Path
) -> None:
    served = serve(kv=Kv(chunk=64, public=[file_of(tmp_path, messages=[SYSTEM])]))
    read_ahead(served)
    first = ask(served, "a", SYSTEM, SECRET)
    assert cached(first) > 0, "it was read ahead"
    again = ask(served, "a", SYSTEM, SECRET)
    assert cached(again) > cached(first)
    stranger = ask(served, "b", SYSTEM, SECRET)
    assert cached(stranger) == cached(first)
    assert stranger["kv_explain"][0]["cause"] == "never_seen", "not that another tenant has it"
    assert cached(ask(served, "a", SYSTEM, SECRET, cache_key="v2")) == cached(first)
    assert cached(ask(served, "a", {**SYSTEM, "content": "Else. " * 60}, SECRET)) == 0


def test_an_administrator_is_told_that_another_tenant_has_what_is_behind_it(
    serve: Serve, tmp_path: Path
) -> None:
    served = serve(kv=Kv(chunk=64, public=[file_of(tmp_path, messages=[SYSTEM])]))
    ask(served, "a", SYSTEM, SECRET)

    def told(key: str, **more: Any) -> dict[str, Any]:
        answer = httpx.post(
            f"{served.url}/kv/explain",
            json={"messages": [SYSTEM, SECRET], **more},
            headers={"x-thinkonce-client-authorization": f"Bearer {key}"},
        )
        return dict(answer.json()["prompts"][0])

    assert told("b")["cause"] == "other_tenant"
    salted = told("a", kv_cache={"namespace": "n"})
    assert (salted["cause"], salted["fields"]) == ("salt", ["namespace"])


def test_a_tenants_purge_leaves_it_and_a_purge_of_all_takes_it(
    serve: Serve, tmp_path: Path
) -> None:
    served = serve(kv=Kv(chunk=64, public=[file_of(tmp_path, messages=[SYSTEM])]))
    read_ahead(served)
    public = cached(ask(served, "a", SYSTEM, SECRET, tags=["t"]))
    assert cached(ask(served, "a", SYSTEM, SECRET, tags=["t"])) > public > 0
    purge(served, tags=["t"])
    assert cached(ask(served, "a", SYSTEM, SECRET, tags=["t"])) == public
    purge(served, tenant="public")
    assert cached(ask(served, "a", SYSTEM, SECRET, tags=["t"])) == 0
    assert cached(ask(served, "b", SYSTEM, SECRET)) == public
    purge(served, all=True)
    assert cached(ask(served, "b", SYSTEM, SECRET)) == 0


def test_it_is_there_after_a_restart_and_listed_as_public(serve: Serve, tmp_path: Path) -> None:
    path = file_of(tmp_path, messages=[SYSTEM])
    kv = Kv(chunk=64, public=[path], store=str(tmp_path / "kv"))
    with_folder = serve(kv=kv)
    read_ahead(with_folder)
    with_folder.server.stop()
    again = serve(kv=kv)
    assert cached(ask(again, "z", SYSTEM, SECRET)) > 0
    rows = httpx.get(f"{again.url}/kv/entries").json()["entries"]
    assert "public" in {row["tenant"] for row in rows}


def test_a_text_for_completions_may_be_public_too(model: Model, tmp_path: Path) -> None:
    said = "Once upon a time. " * 9
    (tokens,) = public_prefixes(model, [file_of(tmp_path, prompt=said)]).prefixes
    assert str(model.tokenizer.decode(list(tokens))).startswith(said[:-8])


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"messages": []},
        {"messages": [SYSTEM], "prompt": "both"},
        {"messages": [{"role": "oracle", "content": "x"}]},
        {"message": [SYSTEM]},
    ],
)
def test_a_file_that_is_no_prompt_is_named(
    model: Model, tmp_path: Path, said: dict[str, Any]
) -> None:
    path = file_of(tmp_path, **said)
    with pytest.raises(ConfigError, match=r"public\.json"):
        public_prefixes(model, [path])
    with pytest.raises(ConfigError, match="absent"):
        public_prefixes(model, [str(tmp_path / "absent")])
