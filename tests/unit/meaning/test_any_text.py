"""Whatever the text is: nothing raises, time stays linear, and what must hold holds."""

from __future__ import annotations

import time

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from thinkonce.meaning.guards.examine import examine
from thinkonce.meaning.text.analysis import Analysed, analyse
from thinkonce.meaning.text.eligible import ineligible

# Any code point, lone surrogates and NUL among them; and texts of pieces the rules look for.
ANY = st.text(st.characters(exclude_categories=()), max_size=60)
_SIGNS = "不没别一二两十百千万第半个月日号点年从到比的吗呢？,.?!:/-$%'\"《》()_ \n\x00\ud800轉Ａ"
_WORDS = [
    *(
        "你好",
        "谢谢",
        "请问",
        "三分之",
        "百分之",
        "not ",
        "can't ",
        "please ",
        "from ",
        "to ",
        "than ",
    ),
    *("1,500", "3.12", "2021", "k", "kg ", "may ", "am ", "why ", "how ", "and ", "dozen ", "cant"),
    *("hundred ", "one ", "Paris "),
]
PIECES = st.lists(
    st.sampled_from([*_SIGNS, *_WORDS]),
    max_size=14,
).map("".join)
TEXTS = ANY | PIECES


@given(TEXTS)
@settings(max_examples=150)
def test_any_string_can_be_read_normalised_and_judged(text: str) -> None:
    known = analyse(text)
    ineligible(text)
    assert examine(known, known) == ()
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(known), type=Analysed) == known


@given(TEXTS)
@settings(max_examples=200)
def test_the_normal_form_of_a_normal_form_is_itself(text: str) -> None:
    once = analyse(text).normal
    assert analyse(once).normal == once


@given(TEXTS, TEXTS)
@example("DOZEN年", "DOZEN0DOZEN两")  # twelve years; twelve, and twelve of another unit
@settings(max_examples=100)
def test_refusals_do_not_depend_on_the_order(a: str, b: str) -> None:
    one, other = analyse(a), analyse(b)
    assert examine(one, other) == examine(other, one)


LONG = [
    *(
        "谢谢",
        "请问",
        "一",
        "十",
        "二分之",
        "《",
        "不",
        "🙂",
        "not ",
        "from a to b ",
        "can't ",
        "x ",
    ),
    *(
        "1,",
        "1.",
        "9",
        "a.",
        "a_",
        "a@",
        "(",
        '"',
        "two hundred and ",
        "www.",
        "'",
        "a1",
        "Aa",
        " ",
    ),
    *("?", "\x00", "\ud800", "http://", "-", "="),
]


def test_a_hundred_thousand_characters_are_read() -> None:
    assert analyse("does it not cost 5 kg " * 4_546).characters > 100_000


@pytest.mark.slow
@pytest.mark.parametrize("piece", LONG)
def test_long_texts_take_linear_time(piece: str) -> None:
    """Eight times the text takes far less than sixty-four times the time."""
    short, long = (piece * (size // len(piece)) for size in (1_500, 12_000))
    brief = min(_seconds(short) for _ in range(2))
    assert _seconds(long) < 30 * brief + 0.02
    assert ineligible(long) is not None


def _seconds(text: str) -> float:
    began = time.process_time()
    analyse(analyse(text).normal)
    return time.process_time() - began
