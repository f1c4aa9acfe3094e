"""Plain forms: what they make one, what they keep apart, and what becomes of any text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkonce.meaning.lexical import FINGERPRINT_BYTES, fingerprint, plain_form


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How can I reset the router?", "how do i reset router"),
        ("Which is a good book on Java, please?", "What is good book on java"),
        ("What's my favourite colour?", "what is my favorite color"),
        ("How much does it really cost", "How much does it cost???"),
        ("怎么样才可以重置路由器不？", "请问，怎样才能重置路由器吗"),
        ("限额到底是多少呢", "限額是多少"),
        ("手机和电脑的区别是啥", "手机与电脑区别是什么"),
        ("我的帐号为啥登不上", "我帐号为什么登不上"),
    ],
)
def test_nearly_the_same_words_have_one_fingerprint(one: str, other: str) -> None:
    assert plain_form(one) == plain_form(other)
    assert fingerprint(one) == fingerprint(other)
    assert len(fingerprint(one)) == FINGERPRINT_BYTES


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is vitamin A good for?", "What is vitamin good for?"),
        ("symptoms of hepatitis a", "symptoms of hepatitis"),
        ("How do I enable it?", "How do I disable it?"),
        ("from Paris to London", "from London to Paris"),
        ("How do you feel?", "How do I feel?"),
        ("What are the functions in C++?", "What are the functions in C?"),
        ("能退款吗", "不能退款吗"),
        ("我借他钱", "他借我钱"),
        ("花呗怎么还款", "借呗怎么还款"),
    ],
)
def test_other_questions_have_other_fingerprints(one: str, other: str) -> None:
    assert fingerprint(one) != fingerprint(other)


@pytest.mark.parametrize("text", ["", "   ", "?!…", "\0\n", "​"])
def test_where_nothing_is_said_there_is_no_fingerprint(text: str) -> None:
    assert fingerprint(text) == b""


@pytest.mark.parametrize("text", ["the", "的", "a", "请", "不"])
def test_a_word_that_says_nothing_is_what_is_asked_where_it_stands_alone(text: str) -> None:
    assert plain_form(text)


@given(st.text(max_size=200))
def test_any_text_has_a_plain_form_and_a_fingerprint_where_it_says_something(text: str) -> None:
    assert len(fingerprint(text)) == (FINGERPRINT_BYTES if plain_form(text) else 0)
