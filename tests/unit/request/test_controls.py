"""Controls: three sources, one struct; what is wrong is named."""

from __future__ import annotations

import json
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinkonce.errors import RequestError
from thinkonce.request.controls import DEFAULTS, Controls, parse_controls, strip_controls

Headers = list[tuple[bytes, bytes]]

SDK_HEADERS: Headers = [
    (b"host", b"localhost"),
    (b"authorization", b"Bearer secret"),
    (b"x-stainless-lang", b"python"),
    (b"x-thinking", b"no control of ours"),
]


def parsed(kv_cache: Any = None, cache: Any = None, **headers: str) -> Controls:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return parse_controls(kv_cache, cache, SDK_HEADERS + pairs)


def test_nothing_said_is_the_one_default_struct() -> None:
    assert parsed() is DEFAULTS
    assert parsed({}, {}) == DEFAULTS


def test_every_field_of_the_body_arrives() -> None:
    controls = parsed(
        {
            "enabled": True,
            "cache_key": "faq",
            "key_mode": "override",
            "ttl": "5m",
            "priority": "high",
            "context_aware": False,
            "preload": True,
            "namespace": "v2",
            "tags": ["a", "b", "a"],
            "refresh": True,
            "semantic": 0.9,
            "reuse": "blend",
            "schema": "persona",
            "modules": ["who", "work/farmer"],
            "arguments": {"name": "Ann"},
        }
    )
    assert controls == Controls(
        read=False,
        ttl=300.0,
        priority="high",
        label="faq",
        override=True,
        context_aware=False,
        preload=True,
        namespace="v2",
        tags=("a", "b"),
        refresh=True,
        semantic=0.9,
        reuse="blend",
        schema="persona",
        modules=("who", "work/farmer"),
        arguments=(("name", "Ann"),),
    )


def test_every_field_has_a_header() -> None:
    controls = parsed(
        x_thinkonce_cache_key="faq",
        x_thinkonce_ttl="hot",
        x_thinkonce_priority="low",
        x_thinkonce_context_aware="false",
        x_thinkonce_batch_mode="true",
        x_thinkonce_preload="1",
        x_thinkonce_namespace="名前",
        x_thinkonce_tags="a, b,",
        x_thinkonce_refresh="no",
        x_thinkonce_semantic="0.5",
        x_thinkonce_reuse="auto",
        x_thinkonce_schema="persona",
        x_thinkonce_modules="who, farmer",
        x_thinkonce_arguments='{"name": "Ann"}',
    )
    assert controls == Controls(
        ttl_class="hot",
        priority="low",
        label="faq",
        context_aware=False,
        batch_mode=True,
        preload=True,
        namespace="名前",
        tags=("a", "b"),
        semantic=0.5,
        reuse="auto",
        schema="persona",
        modules=("who", "farmer"),
        arguments=(("name", "Ann"),),
    )


@pytest.mark.parametrize(
    ("said", "expected"), [("true", True), ("false", False), ("1", 1.0), ("0", 0.0), ("0.25", 0.25)]
)
def test_a_semantic_header_is_a_switch_or_a_number(said: str, expected: bool | float) -> None:
    semantic = parsed(x_thinkonce_semantic=said).semantic
    assert semantic == expected
    assert type(semantic) is type(expected)


def test_a_list_may_be_split_over_headers_of_different_fields_only() -> None:
    controls = parse_controls(
        None, None, [(b"x-thinkonce-tags", b"a"), (b"x-thinkonce-tags", b"b")]
    )
    assert controls.tags == ("a",), "the first to speak wins, as for every field"


@pytest.mark.parametrize(
    ("said", "ttl", "ttl_class"),
    [
        (0, 0.0, ""),
        (90, 90.0, ""),
        (1.5, 1.5, ""),
        ("1h", 3600.0, ""),
        ("0", 0.0, ""),
        ("static", None, "static"),
        (None, None, ""),
    ],
)
def test_a_ttl_is_seconds_a_text_or_a_class_and_zero_is_a_value(
    said: Any, ttl: float | None, ttl_class: str
) -> None:
    controls = parsed({"ttl": said})
    assert (controls.ttl, controls.ttl_class) == (ttl, ttl_class)


def test_ttl_classes_are_those_of_the_configuration() -> None:
    headers: Headers = []
    assert parse_controls({"ttl": "mine"}, None, headers, {"mine"}).ttl_class == "mine"
    with pytest.raises(RequestError, match="mine"):
        parse_controls({"ttl": "hot"}, None, headers, {"mine"})


def test_litellm_spelling_means_what_the_rfc_says() -> None:
    controls = parsed(
        None, {"ttl": 60, "s-maxage": 10, "no-cache": True, "no-store": True, "namespace": "n"}
    )
    assert controls == Controls(
        read=False, store=False, refresh=True, ttl=60.0, max_age=10.0, namespace="n"
    )
    assert parsed(None, {"use-cache": True}) == DEFAULTS
    assert parsed(None, {"use-cache": False}).enabled is False


def test_cache_control_directives() -> None:
    controls = parsed(
        cache_control='max-age=0, min-fresh="5", MAX-STALE, only-if-cached, no-transform, '
        "stale-if-error=60,stale-while-revalidate=30"
    )
    assert controls == Controls(
        max_age=0.0,
        min_fresh=5.0,
        max_stale=inf,
        only_if_cached=True,
        stale_if_error=60.0,
        stale_while_revalidate=30.0,
    )
    assert parsed(cache_control="max-stale=7").max_stale == 7.0
    assert parsed(cache_control="no-cache") == Controls(read=False, refresh=True)
    assert parsed(cache_control="no-store") == Controls(store=False)


def test_the_strongest_source_wins_field_by_field() -> None:
    controls = parsed(
        {"ttl": 1},
        {"ttl": 2, "namespace": "body"},
        x_thinkonce_ttl="3",
        x_thinkonce_namespace="header",
        x_thinkonce_refresh="false",
        cache_control="no-cache, max-age=9",
    )
    assert controls.ttl == 1.0
    assert controls.namespace == "body"
    assert controls.max_age == 9.0
    assert controls.refresh is False, "x-thinkonce-refresh is stronger than Cache-Control"
    assert controls.read is True


def test_a_zero_from_a_strong_source_is_not_overruled() -> None:
    assert parsed({"ttl": 0}, {"ttl": 5}).ttl == 0.0


@pytest.mark.parametrize(
    ("kv_cache", "cache", "headers"),
    [
        ({"enabled": False}, None, {"x_thinkonce_enabled": "true"}),
        ({"enabled": True}, None, {"x_thinkonce_enabled": "false"}),
        (None, {"use-cache": False}, {"x_thinkonce_enabled": "true"}),
    ],
)
def test_a_switch_off_wins_from_any_source(
    kv_cache: Any, cache: Any, headers: dict[str, str]
) -> None:
    controls = parsed(kv_cache, cache, **headers)
    assert (controls.enabled, controls.read, controls.store) == (False, False, False)


@pytest.mark.parametrize(
    ("cache", "headers"),
    [({"no-store": True}, {}), ({"no-store": False}, {"cache_control": "no-store"})],
)
def test_no_store_wins_from_any_source(cache: Any, headers: dict[str, str]) -> None:
    controls = parsed({"refresh": False}, cache, **headers)
    assert controls.store is False
    assert controls.read is True, "no-store says nothing about reading (RFC 9111, 5.2.1.5)"


@pytest.mark.parametrize(
    ("kv_cache", "field"),
    [
        ({"enabled": 1}, "kv_cache.enabled"),
        ({"enabled": "true"}, "kv_cache.enabled"),
        ({"cache_key": 5}, "kv_cache.cache_key"),
        ({"cache_key": "x" * 1025}, "kv_cache.cache_key"),
        ({"key_mode": "mine"}, "kv_cache.key_mode"),
        ({"key_mode": "override"}, "key_mode"),
        ({"key_mode": "override", "cache_key": "a", "batch_mode": True}, "key_mode"),
        ({"ttl": -1}, "kv_cache.ttl"),
        ({"ttl": 10**400}, "kv_cache.ttl"),
        ({"ttl": True}, "kv_cache.ttl"),
        ({"ttl": "soon"}, "kv_cache.ttl"),
        ({"ttl": [1]}, "kv_cache.ttl"),
        ({"priority": "highest"}, "kv_cache.priority"),
        ({"priority": ["high"]}, "kv_cache.priority"),
        ({"tags": "a"}, "kv_cache.tags"),
        ({"tags": ["a", 1]}, "kv_cache.tags"),
        ({"tags": ["a"] * 65}, "kv_cache.tags"),
        ({"semantic": 1.5}, "kv_cache.semantic"),
        ({"semantic": "yes"}, "kv_cache.semantic"),
        ({"reuse": "some"}, "kv_cache.reuse"),
        ({"schema": 1}, "kv_cache.schema"),
        ({"schema": "s", "modules": "who"}, "kv_cache.modules"),
        ({"schema": "s", "arguments": ["Ann"]}, "kv_cache.arguments"),
        ({"schema": "s", "arguments": {"name": 1}}, "kv_cache.arguments"),
        ({"modules": ["who"]}, "kv_cache.modules"),
        ({"arguments": {"name": "Ann"}}, "kv_cache.arguments"),
        ([], "kv_cache"),
        ("on", "kv_cache"),
    ],
)
def test_a_bad_value_is_refused_by_name(kv_cache: Any, field: str) -> None:
    with pytest.raises(RequestError) as caught:
        parsed(kv_cache)
    assert caught.value.field == field


def test_an_unknown_field_is_refused_with_the_known_ones() -> None:
    sources: list[dict[str, Any]] = [{"kv_cache": {"tll": 5}}, {"x_thinkonce_tll": "5"}]
    for said in sources:
        with pytest.raises(RequestError, match="tll") as caught:
            parsed(**said)
        for known in ("ttl", "context", "semantic", "tags"):
            assert known in str(caught.value)
    with pytest.raises(RequestError, match="s-maxage"):
        parsed(None, {"s_maxage": 5})


@pytest.mark.parametrize("said", ["max-age=soon", "max-age", "min-fresh=-1", "max-age=1.5"])
def test_a_bad_directive_is_refused_by_name(said: str) -> None:
    with pytest.raises(RequestError, match="cache-control m"):
        parsed(cache_control=said)


@pytest.mark.parametrize("text", ["Ann", "[1]", '{"name": 1}', "[" * 9000, "{"])
def test_a_header_of_arguments_that_is_no_object_of_texts_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="arguments"):
        parsed(x_thinkonce_schema="s", x_thinkonce_arguments=text)


def test_headers_that_say_who_asks_are_no_controls() -> None:
    assert parsed(x_thinkonce_tenant="t", x_thinkonce_admin_token="secret") == DEFAULTS


def test_a_header_that_is_not_utf8_is_read_as_latin_1() -> None:
    controls = parse_controls(None, None, [(b"x-thinkonce-namespace", b"caf\xe9")])
    assert controls.namespace == "café"


# -- taking them out of the body -----------------------------------------------------------------


def test_controls_are_cut_out_and_the_rest_stays_byte_for_byte() -> None:
    raw = b'{ "model" : "m", "kv_cache":{"ttl":5} ,"seed":1.0 , "cache": {} }'
    assert strip_controls(raw, json.loads(raw)) == b'{"model" : "m","seed":1.0}'


def test_a_body_without_controls_is_the_same_object() -> None:
    raw = b'{"model":"m","messages":[]}'
    assert strip_controls(raw, json.loads(raw)) is raw


def test_controls_inside_a_content_part_stay() -> None:
    raw = b'{"messages":[{"content":[{"type":"text","kv_cache":{"reuse":"link"}}]}],"cache":null}'
    stripped = strip_controls(raw, json.loads(raw))
    assert stripped == b'{"messages":[{"content":[{"type":"text","kv_cache":{"reuse":"link"}}]}]}'


def test_repeated_and_escaped_names_are_cut_out_too() -> None:
    raw = b'{"kv_cache":1,"a":"\\"kv_cache\\":2","kv\\u005fcache":3,"kv_cache":4}'
    assert strip_controls(raw, json.loads(raw)) == b'{"a":"\\"kv_cache\\":2"}'


def test_our_own_engine_is_given_what_concerns_it() -> None:
    raw = b'{"model":"m","kv_cache":{"ttl":5,"cache_key":"a"}}'
    stripped = strip_controls(raw, json.loads(raw), keep=b'{"ttl":5}')
    assert json.loads(stripped) == {"model": "m", "kv_cache": {"ttl": 5}}
    assert strip_controls(b"{}", {}, keep=b"1") == b'{"kv_cache":1}'


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60)
@given(
    st.dictionaries(st.text() | st.sampled_from(["kv_cache", "cache"]), json_values),
    st.sampled_from([None, 2]),
    st.booleans(),
)
def test_stripping_any_body_leaves_all_other_members(
    body: dict[str, Any], indent: int | None, ascii_only: bool
) -> None:
    raw = json.dumps(body, indent=indent, ensure_ascii=ascii_only)
    if "\ud800" <= max(raw, default="") <= "\udfff":
        return  # not UTF-8
    rest = {name: value for name, value in body.items() if name not in ("kv_cache", "cache")}
    assert json.loads(strip_controls(raw.encode("utf-8", "surrogatepass"), body)) == rest
