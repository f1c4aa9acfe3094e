"""Two requests compared: what keeps them apart, down to the first character."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from thinkonce.entry import Entry, Meta
from thinkonce.insight.explain import compare, nearest
from thinkonce.request.kept import KeptRequest, pack


def request(content: str = "What is the capital of Norway?", **changed: object) -> KeptRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": content}]}
    fields = {"endpoint": "chat/completions", "pool": "p", "tenant": "t", "identity": body}
    return KeptRequest(**{**fields, **changed})  # type: ignore[arg-type]


def entry(kept: KeptRequest | None, name: bytes = b"k") -> Entry:
    packed = b"" if kept is None else pack(kept.parts())
    return Entry(None, b"", Meta(), name.ljust(32, b"."), request=packed)


def test_the_first_character_that_differs_is_named() -> None:
    (found,) = compare(request(), request("What is the capital of Nauru?"))
    assert (found.field, found.character) == ("messages[0].content", 24)
    assert found.asked is not None
    assert found.stored is not None
    assert found.at is not None
    assert (found.asked[found.at], found.stored[found.at]) == ("o", "a")


@given(st.text(max_size=30), st.text(max_size=30))
def test_the_place_is_that_of_a_comparison_character_by_character(one: str, other: str) -> None:
    found = compare(request(one), request(other))
    if one == other:
        assert found == []
        return
    pairs = enumerate(zip(one, other, strict=False))
    place = next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))
    assert found[0].character == place


def test_controls_come_before_the_body_and_the_body_s_model_before_its_messages() -> None:
    other = request("else", tenant="u", namespace="v2", label="l", mode="context-free")
    assert [item.field for item in compare(request(), other)] == [
        "tenant",
        "namespace",
        "cache_key",
        "context_aware",
        "messages[0].content",
    ]


def test_what_only_one_of_them_has_is_told_apart_from_what_is_empty() -> None:
    more = request(headers=(("anthropic-beta", "x"),))
    (found,) = compare(request(), more)
    assert (found.field, found.asked, found.stored) == ("header anthropic-beta", None, "x")
    (found,) = compare(request(identity={"a": ""}), request(identity={}))
    assert (found.field, found.asked, found.stored) == ("a", "", None)
    assert compare(request(identity={"a": "1"}), request(identity={"a": 1}))
    assert compare(request(identity={"a": []}), request(identity={"a": {}}))
    assert compare(request(identity={"a": []}), request(identity={"a": "[]"}))


def test_the_nearest_is_the_one_that_differs_least() -> None:
    entries = [
        entry(request("Write a poem."), b"far"),
        entry(None, b"unkept"),
        entry(request("What is the capital of Sweden?"), b"near"),
        entry(request(), b"the same"),
        entry(request("What is the capital of Sweden?", namespace="x", label="y"), b"apart"),
    ]
    found = nearest(request(), entries)
    assert found is not None
    assert found.entry.digest.startswith(b"near")
    assert nearest(request(), [entry(None), entry(request())]) is None


def test_a_hundred_differences_are_counted_and_a_few_are_shown() -> None:
    body = {f"f{n}": n for n in range(100)}
    found = nearest(request(identity={}), [entry(request(identity=body))])
    assert found is not None
    assert (len(found.differences), found.more) == (20, 80)


def test_long_prompts_are_compared_in_no_time() -> None:
    text = "x" * 1_000_000
    began = time.process_time()
    (found,) = compare(request(text + "a" + text), request(text + "b" + text))
    assert found.character == len(text)
    assert time.process_time() - began < 1
