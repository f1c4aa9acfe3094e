"""Members of a JSON object, found and changed in its bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinkonce.protocols.splice import add, members, put, without

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(['"', "\\", '{"a":1}']),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.text(max_size=5) | st.sampled_from(["id", 'a"b', "\\"]), values)
spacings = st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t:\r\n")])


def text_of(body: dict[str, Any], spacing: tuple[str, str]) -> bytes:
    return json.dumps(body, separators=spacing).encode()


@settings(max_examples=40)
@given(objects, spacings)
def test_members_are_found_where_they_are(body: dict[str, Any], spacing: tuple[str, str]) -> None:
    raw = text_of(body, spacing)
    found = {member.name: json.loads(raw[member.value : member.end]) for member in members(raw)}
    assert found == body
    assert list(found) == list(body), "in their order"
    for member in members(raw):
        assert raw[member.start : member.start + 1] == b'"'
        assert not raw[member.value : member.end].endswith((b" ", b"\n", b",", b"\t"))


@settings(max_examples=40)
@given(objects, spacings, st.data())
def test_taking_members_out_leaves_the_others(
    body: dict[str, Any], spacing: tuple[str, str], data: st.DataObject
) -> None:
    names = data.draw(st.sets(st.sampled_from([*body, "absent"])))
    rest = {name: value for name, value in body.items() if name not in names}
    assert json.loads(without(text_of(body, spacing), names)) == rest


@settings(max_examples=40)
@given(objects, spacings)
def test_members_are_added_at_the_end(body: dict[str, Any], spacing: tuple[str, str]) -> None:
    raw = text_of(body, spacing) + b" \n"
    assert json.loads(add(raw, b'"\xc3\xa9":1')) == {**body, "é": 1}
    assert add(raw, b"") is raw


@settings(max_examples=40)
@given(objects, spacings)
def test_a_search_for_some_names_finds_them_all_the_same(
    body: dict[str, Any], spacing: tuple[str, str]
) -> None:
    raw = text_of(body, spacing)
    wanted = list(body)[:2]
    found = members(raw, wanted)
    assert found == members(raw)[: len(found)]
    if wanted:
        assert {member.name for member in found} >= set(wanted)


def test_a_repeated_name_is_found_each_time() -> None:
    assert [member.name for member in members(b'{"a":1,"b":{"a":2},"a":3}')] == ["a", "b", "a"]


def test_a_text_that_looks_like_structure_is_only_text() -> None:
    raw = b'{"text":"}, \\"id\\": {[","id":"x\\\\"}'
    assert [member.name for member in members(raw)] == ["text", "id"]
    assert without(raw, ("id",)) == b'{"text":"}, \\"id\\": {["}'


def test_a_megabyte_of_backslashes_takes_no_time_to_speak_of() -> None:
    raw = b'{"a":"' + b"\\\\" * 500_000 + b'","b":1}'
    assert [member.name for member in members(raw)] == ["a", "b"]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"model":"a","n":1}', b'{"model":"x","n":1}'),
        (b'{ "n" : 1.50, "model" : "a" }', b'{ "n" : 1.50, "model" : "x" }'),
        (b'{"model":"a","model":{"b":[1]}}', b'{"model":"x","model":"x"}'),
        (b'{"mod\\u0065l":"a"}', b'{"mod\\u0065l":"x"}'),
        (b'{"n":{"model":"a"}}', b'{"n":{"model":"a"},"model":"x"}'),
        (b"{}", b'{"model":"x"}'),
    ],
)
def test_a_member_gets_another_value_and_the_rest_stays_as_it_is(
    raw: bytes, expected: bytes
) -> None:
    assert put(raw, "model", b'"x"') == expected
