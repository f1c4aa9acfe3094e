"""Bodies: what shares a key, what does not, and what has none."""

from __future__ import annotations

import json
import random
import string
from time import process_time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinkonce.errors import RequestError
from thinkonce.request.canonical import MAX_DEPTH, MalformedBody, parse_body
from thinkonce.request.kept import read_parts
from thinkonce.request.key import request_parts


def key(raw: bytes) -> bytes:
    parsed = parse_body(raw)
    assert parsed.unkeyable == "", f"{raw[:80]!r} should have a canonical form"
    return request_parts(("e", "p", "t", ""), ("", "", False), parsed.body)


def nested(levels: int) -> bytes:
    """An object that is the first level, and arrays down to `levels`."""
    return b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


@pytest.mark.parametrize(
    "spellings",
    [
        ["0", "0.0", "-0", "-0.0", "0e7"],
        ["100", "1e2", "1E+2", "100.0"],
        ["0.1", "0.10", "1e-1"],
        ["9007199254740991", "9007199254740991.0"],
    ],
)
def test_one_number_has_one_key_however_it_is_spelled(spellings: list[str]) -> None:
    assert len({key(b'{"n":%b}' % text.encode()) for text in spellings}) == 1


@pytest.mark.parametrize(
    "texts",
    [
        ["1", "true", '"1"', "[1]", "null", '{"n":1}'],
        ["0", "false", '""', "[]", "{}", "null"],
        ["0.1", "0.11", "0.10000000000000001e1"],
        ['"é"', '"e\\u0301"', '"É"', '"é "'],
        ["18446744073709551615", "18446744073709551614", "-9223372036854775808"],
    ],
)
def test_different_values_have_different_keys(texts: list[str]) -> None:
    assert len({key(b'{"n":%b}' % text.encode()) for text in texts}) == len(texts)


def test_null_and_absent_stay_apart() -> None:
    assert key(b'{"a":1,"n":null}') != key(b'{"a":1}')


def test_an_escaped_character_is_the_character() -> None:
    assert key('{"a":"é"}'.encode()) == key(b'{"a":"\\u00e9"}')


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b'{"a":1e400}', "form"),
        (b'{"a":-1e400}', "form"),
        (b'{"a":1e-400}', "form"),
        (b'{"a":0.123456789012345678}', "form"),
        (b'{"a":9007199254740993.0}', "form"),
        (b'{"a":1e22}', "form"),
        (b'{"a":18446744073709551616}', "64 bits"),
        (b'{"a":[{"b":-9223372036854775809}]}', "64 bits"),
        (b'{"a":' + b"7" * 5000 + b"}", "form"),
        (b'{"a":"\\ud800"}', "form"),
        (b'{"\\ud800":1}', "form"),
        (b'{"a":1,"a":1}', "twice"),
        (b'{"m":[{"role":"user","role":"system"}]}', "twice"),
        (b'{"a":"\\u003a","b":{"c":1,"c":2}}', "twice"),
        (nested(MAX_DEPTH + 1), "deeper"),
        (nested(2000), "deeper"),
    ],
)
def test_what_cannot_be_keyed_is_flagged_and_never_raised(raw: bytes, why: str) -> None:
    assert why in parse_body(raw).unkeyable


def test_an_unkeyable_body_can_still_be_read_for_its_model_and_controls() -> None:
    body = parse_body(b'{"model":"m","kv_cache":{"enabled":false},"seed":1e400}').body
    assert body["model"] == "m"
    assert body["kv_cache"] == {"enabled": False}


def test_even_a_body_too_deep_for_any_parser_tells_where_it_wants_to_go() -> None:
    deep = b"[" * 50_000
    raw = b'{"model":"m","messages":' + deep + b"]" * 50_000 + b',"kv_cache":{"enabled":false}}'
    assert parse_body(raw).body == {"model": "m", "kv_cache": {"enabled": False}}
    for cut in (b'{"model":"m","messages":' + deep, deep, b'{"a":' * 50_000):
        assert parse_body(cut).unkeyable != "", "whether it is JSON is for the upstream to say"


def test_the_depth_cap_is_exact() -> None:
    assert parse_body(nested(MAX_DEPTH)).unkeyable == ""
    assert parse_body(nested(MAX_DEPTH + 1)).unkeyable != ""


def test_a_number_of_17_digits_is_kept() -> None:
    assert parse_body(b'{"a":-0.00012345678901234567e-3}').unkeyable == ""
    assert parse_body(b'{"a":0.000123456789012345678}').unkeyable != ""


@pytest.mark.parametrize(
    ("raw", "line", "column"),
    [
        (b"", 1, 1),
        (b" \n ", 1, 1),
        (b"\xef\xbb\xbf{}", 1, 1),
        ("{}".encode("utf-16"), 1, 1),
        (b'{"a":NaN}', 1, 6),
        (b'{"a":"NaN",\n "b":-Infinity}', 2, 6),
        (b'{"a":01}', 1, 7),
        (b'{"a":1.}', 1, 7),
        (b"{} x", 1, 4),
        (b'{"a":1,\n\n  "b" 2}', 3, 7),
        (b'{"a":"\x00"}', 1, 7),
        (b'{"a":1,\n"b":"\xff"}', 2, 6),
        (b'{"a":1', 1, 7),
    ],
)
def test_what_is_not_json_is_refused_with_its_place(raw: bytes, line: int, column: int) -> None:
    with pytest.raises(MalformedBody) as caught:
        parse_body(raw)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert f"line {line} column {column}" in str(caught.value)


@pytest.mark.parametrize("raw", [b"[1]", b'"x"', b"1", b"true", b"null", b'["\\ud800"]'])
def test_json_that_is_no_object_is_refused(raw: bytes) -> None:
    with pytest.raises(RequestError, match="a JSON object"):
        parse_body(raw)


# -- any body ----------------------------------------------------------------------------------

texts = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    [":", '":', '\\":', "a:b", "\\u003a", '"a":1', "{", "}", "[", "}]"]
)
numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(
    -(2.0**52), 2.0**52, allow_nan=False, allow_subnormal=False
)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
bodies = st.dictionaries(texts, values, max_size=5)


def spelled(value: Any, chance: random.Random) -> str:
    """`value` as JSON with names in any order, any white space, any spelling."""
    space = chance.choice(["", " ", "\n\t", "\r\n "])
    if isinstance(value, dict):
        names = list(value)
        chance.shuffle(names)
        pairs = (f"{_text(n, chance)}{space}:{space}{spelled(value[n], chance)}" for n in names)
        return "{" + space + f"{space},{space}".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + f",{space}".join(spelled(item, chance) for item in value) + space + "]"
    if isinstance(value, str):
        return _text(value, chance)
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, int) and abs(value) < 2**53 and chance.random() < 0.5:
        return f"{value}.0"
    return repr(value) if isinstance(value, int) else repr(float(value))


def _text(text: str, chance: random.Random) -> str:
    return json.dumps(text, ensure_ascii=chance.random() < 0.5)


@settings(max_examples=60)
@given(bodies, st.randoms(use_true_random=False))
def test_order_white_space_and_spelling_never_change_the_key(
    body: dict[str, Any], chance: random.Random
) -> None:
    first, second = (spelled(body, chance).encode() for _ in range(2))
    assert key(first) == key(second) == key(json.dumps(body).encode())


@settings(max_examples=60)
@given(bodies.filter(bool), st.randoms(use_true_random=False), values)
def test_any_changed_leaf_changes_the_key(
    body: dict[str, Any], chance: random.Random, other: Any
) -> None:
    before = key(json.dumps(body).encode())
    changed = json.loads(json.dumps(body))
    place, name = _leaf(changed, chance)
    if _same(place[name], other):
        return
    place[name] = other
    assert key(json.dumps(changed).encode()) != before


def _leaf(value: Any, chance: random.Random) -> tuple[Any, Any]:
    place, name = value, chance.choice(list(value))
    while isinstance(place[name], dict | list) and place[name]:
        place = place[name]
        name = chance.choice(list(place) if isinstance(place, dict) else range(len(place)))
    return place, name


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, bool) or isinstance(new, bool) or old is None or new is None:
        return old is new
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(_same(old[name], new[name]) for name in old)
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(_same, old, new))
    return bool(old == new)


@settings(max_examples=60)
@given(bodies.filter(bool), st.randoms(use_true_random=False), values)
def test_a_repeated_name_is_found_wherever_it_is(
    body: dict[str, Any], chance: random.Random, other: Any
) -> None:
    name = chance.choice(list(body))
    raw = spelled(body, chance)
    more = f",{_text(name, chance)}:{spelled(other, chance)}"
    doubled = raw.rstrip()[:-1] + more + "}"
    inside = '{"x":[' + doubled + "]}"
    for text in (doubled, inside):
        assert "twice" in parse_body(text.encode()).unkeyable


_OPEN = b'{"model":"m","a":' + b"[" * 100_000 + b'"'


@pytest.mark.parametrize(
    "raw",
    [
        b'{"m":{%b, "z":1, "z":2}}' % b",".join(b'"k%d":0' % n for n in range(40_000)),
        _OPEN + b'\\"' * 100_000,
        _OPEN + b'\\"' * 100_000 + b"\\",
        b'{"n":0.%b}' % (b"1" * 1_000_000),
        b'{"n":%b}' % (b"1" * 1_000_000),
    ],
    ids=["a name repeated among many", "quotes in a string that has no end", "... but a backslash",
         "digits behind a point", "digits"],
)  # fmt: skip
def test_a_body_that_is_hard_to_read_takes_no_more_time_than_its_size(raw: bytes) -> None:
    started = process_time()
    assert parse_body(raw).unkeyable
    assert process_time() - started < 1, "what is quadratic takes many seconds"


@settings(max_examples=60)
@given(st.binary(max_size=40) | st.text(string.printable, max_size=40).map(str.encode))
def test_any_bytes_are_read_or_refused_with_a_place(raw: bytes) -> None:
    try:
        parsed = parse_body(raw)
    except RequestError:
        return
    assert isinstance(parsed.body, dict)
    if not parsed.unkeyable:
        assert read_parts(key(raw)).identity == parsed.body
