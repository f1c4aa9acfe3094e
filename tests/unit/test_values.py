import collections
import contextlib
import datetime as dt
import enum
import math
import sys
import threading
import types
import uuid
import zoneinfo
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import Any, NamedTuple

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinkonce.entry import Form
from thinkonce.errors import CorruptEntry
from thinkonce.values import (
    Unkeepable,
    encode,
    keep,
    keep_stream,
    mentions_classes,
    persistable,
    revive,
    thaw,
    thaw_with,
)


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    YES = "yes"


class Rights(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


class Point(NamedTuple):
    x: int
    y: int = 0


@dataclass
class Reply:
    text: str
    parts: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Frozen:
    names: tuple[str, ...]


@dataclass
class Lazy:
    n: int

    @cached_property
    def square(self) -> int:
        return self.n * self.n


class Plain:
    def __init__(self, x: Any) -> None:
        self.x = x


class Usage(msgspec.Struct, frozen=True):
    tokens: int
    rest: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class Counted(msgspec.Struct):
    n: int

    def __post_init__(self) -> None:
        self.n += 1


class Open(msgspec.Struct, dict=True):
    n: int


class Message(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    role: str
    content: str | None = None
    _seen: list[int] = pydantic.PrivateAttr(default_factory=list)


class Subdict(dict[str, Any]):
    pass


class Subtext(str):
    pass


@dataclass
class ListWithFields(list[int]):
    n: int = 0


def exactly_equal(left: Any, right: Any) -> bool:
    """Equal in type at every level; nan equals nan, 0.0 does not equal -0.0."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return repr(left) == repr(right)
    if isinstance(left, dict):
        return len(left) == len(right) and all(
            exactly_equal(a, b) for a, b in zip(left.items(), right.items(), strict=True)
        )
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(exactly_equal, left, right))
    if isinstance(left, set | frozenset):
        return {(type(x), x) for x in left} == {(type(x), x) for x in right}
    return bool(left == right)


# Values of every encodable kind.
UTC_PLUS_8 = dt.timezone(dt.timedelta(hours=8), "CST")
ENCODABLE = [
    {"a": 1, "b": [True, None, 0.5, "话", b"\xff"]},
    {"inner": (1, [2, (3,)], {"t": ()})},
    {1: "int key", "1": "str key"},
    {True: "bool key"},
    {1.5: 0, None: 1, (1, "a"): 2, b"b": 3, frozenset({1}): 4},
    [2**64, -(2**63) - 1, 2**64 - 1, -(2**63), 10**60, -(10**60)],
    [0.0, -0.0, 5e-324, 1e308],
    ["\ud800 alone", {"\udfff": 1}],
    {1, 2, "three"},
    {"set": frozenset({(1, 2), "x"}), "empty": set()},
    [1 + 2j, (3j,)],
    dt.date(1, 1, 1),
    dt.time(23, 59, 59, 999999, fold=1),
    dt.time(1, 2, tzinfo=dt.UTC),
    dt.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
    dt.datetime(9999, 12, 31, 23, 59, 59, 999999),
    dt.datetime(2024, 1, 1, tzinfo=UTC_PLUS_8),
    dt.timedelta(days=-1, microseconds=7),
    [Decimal("1.10"), Decimal("-0"), Decimal("1E+400")],
    uuid.UUID(int=7),
    [Colour.RED, Level.LOW, Word.YES, Rights.READ, Rights.READ | Rights.WRITE, Rights(0)],
    [Point(1, 2), Point("x", [])],
    Reply("hi", [Reply("inner", [(1,)])]),
    Frozen(("a", "b")),
    [Usage(3), Usage(4, {"a": (1,)})],
    Counted(5),
    {"m": Message(role="user", content="x", extra_field=(1, 2))},
]


# By number: the repr of a set differs between processes, and test runners compare ids.
@pytest.mark.parametrize("value", ENCODABLE, ids=range(len(ENCODABLE)))
def test_a_value_comes_back_with_exactly_its_types(value):
    kept = keep(value)
    assert kept.form == Form.ENCODED
    first, second = kept.thaw(kept.payload), kept.thaw(kept.payload)
    assert exactly_equal(first, value), (first, value)
    assert exactly_equal(second, value)
    assert kept.size == len(kept.payload) == len(persistable(kept))


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
any_keys = st.integers() | st.text() | st.booleans() | st.none() | st.tuples(st.integers())
rich = st.recursive(
    json_like
    | st.complex_numbers(allow_nan=False)
    | st.datetimes()
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.sampled_from([Colour.RED, Word.YES, Rights.READ | Rights.WRITE]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(any_keys, inner, max_size=4)
        | st.builds(Point, inner, inner)
        | st.builds(Reply, st.text(), st.lists(inner, max_size=2))
        | st.sets(any_keys, max_size=3)
    ),
    max_leaves=15,
)


@settings(deadline=None, max_examples=300)
@given(rich)
def test_whatever_is_kept_comes_back_exactly(value):
    kept = keep(value)
    back = kept.payload if kept.thaw is None else kept.thaw(kept.payload)
    assert exactly_equal(back, value)
    payload, thawing = revive(kept.form, persistable(kept))
    stored = payload if thawing is None else thawing(payload)
    assert exactly_equal(stored, value), "and from a store likewise"


@pytest.mark.parametrize(
    "value",
    ["", "话", "\ud800", b"x", 0, 2**70, 1.5, math.inf, 1j, True, None, (), (1, ("a", b"b"))],
)
def test_immutable_values_are_handed_out_as_they_are(value):
    kept = keep(value)
    assert (kept.form, kept.thaw) == (Form.PLAIN, None)
    assert kept.payload is value
    assert kept.size > 0
    payload, thawing = revive(Form.PLAIN, persistable(kept))
    assert thawing is None
    assert exactly_equal(payload, value)


@pytest.mark.parametrize(
    "value",
    [
        Subtext("x"),
        Subdict(a=1),
        (1, Subtext("x")),
        collections.OrderedDict(a=1),
        collections.Counter("aab"),
        bytearray(b"x"),
        Plain([1]),
        {"deep": [Plain(1)]},
        ListWithFields(3),
        types.SimpleNamespace(a=[1]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_anything_else_is_copied_and_keeps_its_class(value):
    kept = keep(value)
    assert kept.form == Form.COPIED
    copy = kept.thaw(kept.payload)
    assert type(copy) is type(value)
    assert copy is not kept.payload or type(value) is Subtext
    with pytest.raises(TypeError, match="serializer="):
        persistable(kept)


def test_the_error_of_a_store_names_the_type_inside():
    with pytest.raises(TypeError, match=r"test_values\.Plain .* serializer="):
        persistable(keep({"a": [Plain(1)]}))


def test_a_local_class_is_copied_because_no_other_process_could_find_it():
    @dataclass
    class Local:
        x: int

    kept = keep(Local(1))
    assert kept.form == Form.COPIED
    assert kept.thaw(kept.payload) == Local(1)
    with pytest.raises(TypeError, match=r"Local cannot be imported"):
        persistable(kept)


def test_a_lookalike_under_the_name_of_another_class_is_copied():
    impostor = type("Reply", (), {"__module__": __name__})
    impostor = dataclass(impostor)
    assert keep(impostor()).form == Form.COPIED


@pytest.mark.parametrize("value", [{"a": [1]}, Reply("x", [1]), Plain([1])], ids=type)
def test_nobody_can_change_what_the_next_caller_gets(value):
    def parts(obj):
        return obj["a"] if isinstance(obj, dict) else obj.parts if type(obj) is Reply else obj.x

    kept = keep(value)
    parts(value).append("poison")
    first = kept.thaw(kept.payload)
    assert parts(first) == [1], "the caller who made the answer cannot"
    parts(first).append("poison")
    assert parts(kept.thaw(kept.payload)) == [1], "the caller who got a hit cannot"


def test_a_value_within_itself_is_copied():
    loop: list[Any] = [1]
    loop.append(loop)
    kept = keep(loop)
    assert kept.form == Form.COPIED
    copy = kept.thaw(kept.payload)
    assert copy[1] is copy


def test_deep_nesting_is_copied_and_depth_within_reason_is_encoded():
    def nested(levels):
        value: Any = 1
        for _ in range(levels):
            value = [value]
        return value

    assert keep(nested(90)).form == Form.ENCODED
    assert keep(nested(150)).form == Form.COPIED


def test_what_can_be_neither_encoded_nor_copied_is_refused_by_name():
    with pytest.raises(Unkeepable, match=r"lock.*serializer="):
        keep({"a": threading.Lock()})


def test_state_besides_the_fields_survives():
    lazy = Lazy(3)
    assert lazy.square == 9
    back = thaw(encode(lazy))
    assert vars(back) == {"n": 3, "square": 9}

    opened = Open(1)
    opened.note = (1, 2)
    assert thaw(encode(opened)).note == (1, 2)

    message = Message(role="user")
    message._seen.append(7)
    back = thaw(encode(message))
    assert back._seen == [7]
    assert back.model_fields_set == {"role"}


def test_an_sdk_answer_comes_back_equal_with_its_unknown_fields():
    from openai.types.chat import ChatCompletion

    answer = ChatCompletion.model_validate(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "stop",
                    "message": {"role": "assistant", "content": "你好", "reasoning_content": "…"},
                }
            ],
            "cache_hit": True,
        }
    )
    kept = keep(answer)
    assert kept.form == Form.ENCODED
    back = kept.thaw(kept.payload)
    assert back == answer
    assert back.cache_hit is True
    assert back.choices[0].message.reasoning_content == "…"
    assert back.to_json() == answer.to_json()


# -- from a store ------------------------------------------------------------------------


def lost_classes(monkeypatch):
    module = sys.modules[__name__]
    renamed = dataclass(type("Reply", (), {"__annotations__": {"words": str}}))
    yield lambda: monkeypatch.delattr(module, "Reply")
    yield lambda: monkeypatch.setattr(module, "Reply", renamed)
    yield lambda: monkeypatch.setattr(module, "Reply", Usage)
    yield lambda: monkeypatch.setattr(module, "Reply", len)


@pytest.mark.parametrize("way", range(4), ids=["gone", "other fields", "other kind", "no class"])
def test_a_class_that_is_not_what_it_was_makes_the_entry_corrupt(way, monkeypatch):
    stored = persistable(keep({"r": Reply("hi")}))
    assert mentions_classes(stored)
    list(lost_classes(monkeypatch))[way]()
    with pytest.raises(CorruptEntry, match="Reply"):
        thaw(stored)
    with pytest.raises(CorruptEntry):
        revive(Form.ENCODED, stored)


def test_only_payloads_with_classes_are_checked_when_they_are_read():
    assert not mentions_classes(encode({"a": (1, {2}, 2**70)}))
    assert not mentions_classes(encode([]))
    assert not mentions_classes(b"")
    assert revive(Form.ENCODED, b"\xc1 never decoded here")[0] == b"\xc1 never decoded here"


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=60))
def test_bytes_that_are_no_value_are_corrupt_and_nothing_else(data):
    with contextlib.suppress(CorruptEntry):
        thaw(data)


def test_a_stream_is_the_list_of_its_items():
    kept = keep_stream(["a", ("b", 1), {"c": [2]}])
    assert kept.form == Form.STREAM
    assert kept.thaw(kept.payload) == ["a", ("b", 1), {"c": [2]}]
    assert revive(Form.STREAM, persistable(kept))[1] is thaw
    assert keep_stream([Plain(1)]).form == Form.COPIED


class Backwards:
    def dumps(self, value):
        return value.x.encode()[::-1]

    def loads(self, data):
        return Plain(data[::-1].decode())


def test_a_serializer_brings_its_own_types_into_a_store():
    kept = keep(Plain("abc"), Backwards())
    assert kept.thaw(kept.payload).x == "abc"
    stored, _ = revive(kept.form, persistable(kept))
    assert thaw_with(Backwards())(stored).x == "abc"

    stream = keep_stream([Plain("a"), Plain("b")], Backwards())
    assert [item.x for item in stream.thaw(stream.payload)] == ["a", "b"]


def test_with_and_without_a_serializer_are_never_mixed_up():
    with pytest.raises(CorruptEntry, match="without the serializer="):
        thaw(keep(Plain("abc"), Backwards()).payload)
    with pytest.raises(CorruptEntry, match="serializer="):
        thaw_with(Backwards())(encode((1, 2)))


def test_a_large_copied_value_is_counted_with_what_it_holds():
    assert keep(Plain([bytes([i]) * 5000 for i in range(100)])).size > 500_000
