"""Arguments of Python calls: every type apart, plain and wrapped alike."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import math
import os
import pathlib
import uuid
import zoneinfo
from typing import Any, NamedTuple

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkonce.request.arguments import LocalClass, canonical_args


class Colour(enum.StrEnum):
    RED = "red"


class Size(enum.IntEnum):
    ONE = 1


class Text(str):
    __slots__ = ()


class Pair(NamedTuple):
    a: int
    b: int


@dataclasses.dataclass
class Data:
    a: int = 1


@dataclasses.dataclass
class Other:
    a: int = 1


@dataclasses.dataclass
class WithCache:
    a: int = 1

    @functools.cached_property
    def twice(self) -> int:
        return 2 * self.a


class Model(pydantic.BaseModel):
    a: int = 1


class Record(msgspec.Struct):
    a: int = 1


class OpenRecord(msgspec.Struct, dict=True):
    a: int = 1


def opened(**attributes: Any) -> OpenRecord:
    record = OpenRecord()
    vars(record).update(attributes)
    return record


@dataclasses.dataclass(slots=True)
class Slotted:
    a: int | None = dataclasses.field(init=False)


def slotted(a: int | None) -> Slotted:
    value = Slotted()
    value.a = a
    return value


def form(*values: Any) -> bytes:
    return canonical_args([f"a{i}" for i in range(len(values))], values)


ALL_DIFFERENT: list[Any] = [
    *(1, 1.0, True, "1", b"1", None, bytearray(b"1"), 1j, ...),
    *(0, 0.0, -0.0, False, "", b"", math.nan, math.inf, -math.inf),
    *([], (), {}, set(), frozenset(), collections.deque(), range(0)),
    *([1], (1,), {1}, frozenset({1}), {1: 1}, {"1": 1}, {1.0: 1}, {True: 1}, {(1,): 1}),
    *([1, 2], (1, 2), Pair(1, 2), {"a": 1, "b": 2}, [["a", 1], ["b", 2]]),
    *({"a": 1}, Data(), Other(), Model(), Model(a=1), Record()),
    *(Colour.RED, "red", Text("red"), pathlib.PurePosixPath("red"), pathlib.PureWindowsPath("red")),
    *(Size.ONE, decimal.Decimal("1"), decimal.Decimal("1.0"), fractions.Fraction(1)),
    *(2**64, -(2**63) - 1, str(2**64), 2**65, -(2**65)),
    *("\ud800", "\\ud800", "\ud801"),
    *(datetime.date(2026, 1, 1), datetime.datetime(2026, 1, 1), datetime.time(1)),
    *(
        datetime.datetime(2026, 1, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Lisbon")),
        datetime.timedelta(1),
    ),
    *(datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), "2026-01-01"),
    *(uuid.UUID(int=1), str(uuid.UUID(int=1)), [{"a": (1,)}], [{"a": [1]}]),
    *(opened(), opened(b=1), opened(b=2), opened(c=1), Slotted(), slotted(None), slotted(1)),
    *({"red": 1}, {Colour.RED: 1}, {Text("red"): 1}),
    *([{"red": 1}], [{Colour.RED: 1}], [{Text("red"): 1}], [{"a": {Text("red"): 1}}]),
    *([{"a": {"red": 1}}], [[{"red": 1}]], [[{Text("red"): 1}]], {"a": {Text("red"): 1}}),
    *(collections.OrderedDict(a=1, b=2), collections.OrderedDict(b=2, a=1)),
]


def test_no_two_of_these_values_share_a_form() -> None:
    seen: dict[bytes, Any] = {}
    for value in ALL_DIFFERENT:
        raw = form(value)
        assert raw not in seen, f"{value!r} looks like {seen[raw]!r}"
        seen[raw] = value


def test_a_value_has_the_same_form_alone_and_beside_a_wrapped_one() -> None:
    for value in ALL_DIFFERENT:
        # The tuple forces the slow path; its own bytes follow those of the value.
        both = form(value, (1,))
        assert both.startswith(b"\x92" + form(value)[1:]), repr(value)


def test_order_of_names_and_members_does_not_count() -> None:
    assert form({"a": 1, "b": [2]}) == form({"b": [2], "a": 1})
    assert form({3, 1, 2}) == form({2, 3, 1})
    assert form({(1, 2): "x", (0,): "y"}) == form({(0,): "y", (1, 2): "x"})


def test_arguments_do_not_run_into_each_other() -> None:
    assert form("ab", "c") != form("a", "bc")
    assert form([1], [2]) != form([1, 2], [])


def test_a_cached_property_does_not_change_the_form() -> None:
    value = WithCache()
    before = form(value)
    assert value.twice == 2
    assert form(value) == before


def looped() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


def odd_data() -> Data:
    value = Data()
    value.more = 1  # type: ignore[attr-defined]
    return value


@dataclasses.dataclass
class ListToo(list[int]):
    a: int = 1


@dataclasses.dataclass
class DictToo(dict[str, int]):
    a: int = 1


@dataclasses.dataclass
class TextToo(str):
    a: int = 1


@dataclasses.dataclass
class Failure(Exception):
    a: int = 1


class FurtherSlots(Slotted):
    __slots__ = ("more",)


class Place(pathlib.PurePosixPath):
    __slots__ = ("more",)


def odd_model() -> Model:
    value = Model()
    vars(value)["more"] = 1
    return value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (ListToo(), "ListToo"),
        (DictToo(), "DictToo"),
        (Failure(), "Failure"),
        (TextToo(), "TextToo"),
        (FurtherSlots(), "'more'"),
        (Place("a"), "Place"),
        (odd_model(), "'more'"),
        (object(), "builtins.object"),
        ([{"deep": object()}], "builtins.object"),
        (lambda: 1, "function"),
        (Data, "type"),
        (os, "module"),
        (looped(), "within itself"),
        (odd_data(), "'more'"),
        ({"\ud800": 1}, "surrogate"),
        (iter([1]), "list_iterator"),
    ],
)
def test_a_value_without_a_form_is_refused_by_the_name_of_its_argument(
    value: Any, words: str
) -> None:
    with pytest.raises(TypeError, match="argument 'client'") as caught:
        canonical_args(("prompt", "client"), ("x", value))
    message = str(caught.value)
    assert words in message
    assert "ignore=['client']" in message
    assert "key=" in message


def test_a_base_value_is_read_past_what_a_subclass_overrides() -> None:
    class Sly(str):
        __slots__ = ()

        def __str__(self) -> str:
            return "always the same"

    a, b = (canonical_args(["a0"], [Sly(text)], lambda kind: 1) for text in "ab")
    assert a != b


def named(fields: str) -> Any:
    return collections.namedtuple("P", fields)  # type: ignore[misc]


def local_data() -> type:
    @dataclasses.dataclass
    class Local:
        a: int = 1

    return Local


def test_named_tuples_of_one_name_differ_by_the_names_of_their_members() -> None:
    account_first, amount_first = named("account amount"), named("amount account")
    assert form(account_first(1, 2)) != form(amount_first(1, 2))
    assert form(account_first(1, 2)) == form(named("account amount")(1, 2))
    # What an earlier version of the class held in a first member of its own.
    assert form(named("a b")(1, 2)) != form(named("x y z")(["a", "b"], 1, 2))


def test_models_of_one_name_differ_by_the_order_of_their_fields() -> None:
    one = pydantic.create_model("M", a=(int, 1), b=(int, 1))
    other = pydantic.create_model("M", b=(int, 1), a=(int, 1))
    assert form(one()) != form(other())
    assert form(one()) == form(pydantic.create_model("M", a=(int, 1), b=(int, 1))())


@pytest.mark.parametrize(
    "make",
    [
        local_data,
        lambda: type("Derived", (str,), {"__slots__": (), "__module__": __name__}),
        lambda: dataclasses.make_dataclass("Made", [("a", int, 1)]),
    ],
    ids=["local", "derived", "made"],
)
def test_two_classes_of_one_name_differ_by_their_serials(make: Any) -> None:
    one, other = make(), make()
    serials = {one: 1, other: 2}

    def numbered(value: Any) -> bytes:
        return canonical_args(["a"], [value], serials.__getitem__)

    assert numbered(one()) == numbered(one())
    assert numbered(one()) != numbered(other())
    assert numbered([{"deep": one()}]) != numbered([{"deep": other()}])


def test_a_class_that_its_name_leads_to_needs_no_serial() -> None:
    def never(kind: type) -> int:
        raise AssertionError(kind)

    for value in ALL_DIFFERENT:
        assert canonical_args(["a0"], [value], never) == form(value)


def test_a_class_made_inside_a_function_is_refused_where_only_names_tell() -> None:
    with pytest.raises(LocalClass, match=r"argument 'p'.*<locals>.Local.*ignore=.'p'.*key="):
        canonical_args(["p"], [[local_data()()]])


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


def typed(value: Any) -> Any:
    """`value` so that == compares types too, and NaN equals itself."""
    if isinstance(value, dict):
        return "dict", frozenset((name, typed(item)) for name, item in value.items())
    if isinstance(value, list | tuple):
        return type(value).__name__, tuple(typed(item) for item in value)
    if isinstance(value, float):
        return "float", "nan" if value != value else value.hex()
    return type(value).__name__, value


@given(plain, plain)
def test_forms_are_equal_exactly_when_values_and_types_are(one: Any, other: Any) -> None:
    if any("nan" in repr(value) for value in (one, other)):
        return  # there are many NaNs; that they differ costs a miss, no more
    assert (form(one) == form(other)) == (typed(one) == typed(other))
