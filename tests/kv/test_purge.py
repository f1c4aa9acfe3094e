"""Attention state that was purged is never found again, whoever writes it late or restarts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI
from small_model import Serve, Served, client_of, serving

from thinkonce.errors import ConfigError
from thinkonce.kv.prefix.owner import Owner
from thinkonce.kv.prefix.purges import MOST_RULES, PurgeRule, Purges
from thinkonce.kv.weights.model import Model
from thinkonce.settings import Kv

SECRET = "s" * 64
TEXT = "The quick brown fox jumps over the lazy dog. " * 12


def cached(client: OpenAI, **kv_cache: Any) -> int:
    answer = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": TEXT}],
        max_tokens=2,
        temperature=0,
        extra_body={"kv_cache": kv_cache} if kv_cache else None,
    )
    details = answer.usage and answer.usage.prompt_tokens_details
    return int((details and details.cached_tokens) or 0)


def purge(served: Served, body: Any, **headers: str) -> httpx.Response:
    return httpx.post(f"{served.url}/kv/purge", json=body, headers=headers)


@pytest.fixture
def tagged(served: Served) -> Iterator[OpenAI]:
    """Of one whose prompt is known thrice: with a tag, in a namespace, and with neither."""
    with client_of(served) as client:
        for known in ({"tags": ["v1", "x"]}, {"namespace": "n"}, {}):
            cached(client, **known)
            assert cached(client, **known) > 0
        yield client


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ({"tags": ["v1"]}, (False, True, True)),
        ({"tags": ["v1", "unknown"]}, (False, True, True)),
        ({"namespace": "n"}, (True, False, True)),
        ({"namespace": "n", "tags": ["v1"]}, (True, True, True)),
        ({"tenant": "nobody"}, (True, True, True)),
        ({"model": "TINY"}, (False, False, False)),
        ({"all": True}, (False, False, False)),
    ],
)
def test_what_is_named_is_purged_and_nothing_else(
    served: Served, tagged: OpenAI, body: Any, left: tuple[bool, ...]
) -> None:
    assert served.engine.index is not None
    before = served.engine.index.stats().blocks
    answer = purge(served, body)
    assert answer.status_code == 200
    after = served.engine.index.stats()
    assert answer.json() == {"purged": before - after.blocks} == {"purged": after.purged}
    served.engine.index.check()
    tags = {"tags": ["x", "v1"]}
    found = [cached(tagged, **kv_cache) > 0 for kv_cache in (tags, {"namespace": "n"}, {})]
    assert tuple(found) == left
    assert cached(tagged, **tags) > 0, "what is read afterwards is kept"


@pytest.mark.parametrize("body", [{}, {"tags": []}, {"tag": "a"}, {"all": True, "tags": ["a"]}, []])
def test_a_body_that_names_nothing_purges_nothing(
    served: Served, tagged: OpenAI, body: Any
) -> None:
    assert purge(served, body).status_code == 400
    assert cached(tagged) > 0


def test_another_model_is_not_found(served: Served) -> None:
    assert purge(served, {"model": "other"}).status_code == 404


def test_an_answer_under_way_leaves_nothing_of_what_was_purged(serve: Serve) -> None:
    served = serve()
    with client_of(served) as client:
        cached(client, tags=["v1"])
        served.generator.gate.clear()
        counts: list[int] = []
        under_way = threading.Thread(target=lambda: counts.append(cached(client, tags=["v1"])))
        under_way.start()
        while len(served.generator.begun) < 2 or not _is_pinned(served):
            assert under_way.is_alive()
        assert purge(served, {"tags": ["v1"]}).status_code == 200
        served.generator.gate.set()
        under_way.join(60)
        assert all(count > 0 for count in counts), "it had begun before"
        assert len(counts) == 1
        assert served.engine.index is not None
        assert served.engine.index.stats().blocks == 0
        assert cached(client, tags=["v1"]) == 0


def _is_pinned(served: Served) -> bool:
    assert served.engine.reusing is not None
    return served.engine.reusing.stats.prompts == 2


def test_a_purge_holds_on_disk_after_a_restart_and_in_every_process(
    model: Model, tmp_path: Path
) -> None:
    kept = Kv(chunk=64, store=str(tmp_path / "kv"))
    with serving(model, kv=kept) as first, client_of(first) as client:
        cached(client, tags=["v1"])
        cached(client)
    with serving(model, kv=kept) as second, serving(model, kv=kept) as third:
        with client_of(second) as client:
            assert cached(client, tags=["v1"]) > 0
        assert purge(third, {"tags": ["v1"]}).status_code == 200
        with client_of(second) as client:
            assert cached(client, tags=["v1"]) == 0
            assert cached(client) > 0
    purges = Purges(tmp_path / "kv" / "purges.json")
    assert purges.era_of(Owner(tags=("v1",))).era
    assert not purges.era_of(Owner(tags=("v2",))).era


def test_purges_that_cannot_be_read_stop_the_start(tmp_path: Path) -> None:
    (tmp_path / "purges.json").write_text('[{"rule"')
    with pytest.raises(ConfigError, match="a file of purges"):
        Purges(tmp_path / "purges.json")


def test_a_purge_that_cannot_be_written_holds_in_this_process_whatever_others_write(
    tmp_path: Path,
) -> None:
    purges, other = (Purges(tmp_path / "purges.json") for _ in range(2))
    (tmp_path / "purges.lock").mkdir()
    with pytest.raises(OSError, match="directory"):
        purges.add(PurgeRule(namespace="n"))
    era = purges.era_of(Owner(namespace="n")).era
    assert era
    (tmp_path / "purges.lock").rmdir()
    other.add(PurgeRule(namespace="another"))
    assert purges.era_of(Owner(namespace="another")).era, "it is seen"
    assert purges.era_of(Owner(namespace="n")).era == era, "and hides none of our own"
    purges.add(PurgeRule(namespace="third"))
    assert other.era_of(Owner(namespace="n")).era == era, "the next one writes both"


def test_a_file_of_purges_that_breaks_meanwhile_is_told_and_hides_nothing(tmp_path: Path) -> None:
    purges = Purges(tmp_path / "purges.json")
    purges.add(PurgeRule(namespace="n"))
    (tmp_path / "purges.json").write_text('[{"rule"')
    with pytest.raises(OSError, match=r"purges\.json"):
        purges.add(PurgeRule(namespace="m"))
    assert purges.era_of(Owner(namespace="n")).era
    assert purges.era_of(Owner(namespace="m")).era


def test_purges_are_bounded_and_none_is_lost(tmp_path: Path) -> None:
    purges = Purges()
    eras = set()
    for number in range(MOST_RULES + 1):
        purges.add(PurgeRule(namespace=str(number)))
        eras.add(purges.era_of(Owner(namespace="0")).era)
    assert all(eras), "it never goes back to what was before"
    assert purges.era_of(Owner(namespace="another")).era, "one rule for everything"


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"origin": "http://localhost:3000"},
        {"x-forwarded-for": "10.0.0.1"},
        {"via": "1.1 proxy"},
        {"sec-fetch-site": "cross-site"},
        {"x-thinkonce-engine-secret": "wrong", "host": "evil.example"},
    ],
)
def test_callers_from_elsewhere_may_not_purge(serve: Serve, headers: dict[str, str]) -> None:
    served = serve(secret=SECRET)
    assert purge(served, {"all": True}, **headers).status_code == 403


def test_the_gateway_may_purge_and_a_form_may_not(serve: Serve) -> None:
    served = serve(secret=SECRET)
    gateway = {"host": "engine.internal", "x-thinkonce-engine-secret": SECRET}
    assert purge(served, {"all": True}, **gateway).status_code == 200
    form = httpx.post(f"{served.url}/kv/purge", data={"all": "true"})
    assert form.status_code == 415
