"""Which texts are compared at all, and the word for why not."""

from __future__ import annotations

import pytest

from thinkonce.meaning.text.eligible import MAX_CHARACTERS, Ineligible, ineligible

REFUSED = {
    Ineligible.LENGTH: ["how do i do it " * 40],
    Ineligible.HIDDEN: ["how do i un\u200bdo a purchase", "is it nоt safe to eat raw eggs"],
    Ineligible.NO_LETTERS: ["", "   ", "？！…", "\x00\x01", "123 456", "🙂🙂"],
    Ineligible.ONE_WORD: ["hello", "weather?", "天气", "银行"],
    Ineligible.URL: ["what is on https://example.org now", "see www.example.org please"],
    Ineligible.CODE: [
        "what does ```print(1)``` print",
        "def f(x): return x",
        "for (int i = 0; i < 3; i++) {",
        "SELECT name FROM users;",
    ],
    Ineligible.JSON: ['{"a": 1}', "[1, 2, 3]", 'explain "name": "Bob" to me'],
    Ineligible.ENCODED: ["decode aGVsbG8gd29ybGQgaGVsbG8gd29ybGQgaGVsbG8= for me"],
    Ineligible.OUTPUT: [
        "What is a bond, in one word?",
        "Explain bonds in 50 words",
        "list the planets as JSON",
        "用一句话解释债券",
        "介绍债券，不超过100字",
        "写一篇三百字的作文",
    ],
    Ineligible.FOLLOW_UP: [
        "and in Berlin?",
        "what about tomorrow's game",
        "how does it work",
        "why did he say that",
        "tell me more about apples",
        "那上海呢？",
        "上海呢",
        "它多少钱",
        "这个怎么用",
        "还有别的办法吗",
    ],
    Ineligible.TIME: [
        "what is the weather today",
        "latest news on bonds",
        "今天天气怎么样",
        "最新的手机有哪些",
    ],
}

COMPARED = [
    "How do I reset my password?",
    "Is it possible to cancel an order?",
    "my card was stolen and someone used it abroad",
    "difference between TCP and UDP",
    "please, what is a bond",
    "怎么修改密码",
    "应该怎么办理护照",
    "其他银行可以用吗",
    "手机掉水里怎么办呢",
    "信用卡额度是多少",
]


@pytest.mark.parametrize(
    ("reason", "text"), [(reason, text) for reason, texts in REFUSED.items() for text in texts]
)
def test_a_text_that_is_not_compared_has_a_reason(reason: Ineligible, text: str) -> None:
    assert ineligible(text) is reason


def test_every_reason_is_tried() -> None:
    assert set(REFUSED) == set(Ineligible)


@pytest.mark.parametrize("text", COMPARED)
def test_an_ordinary_question_is_compared(text: str) -> None:
    assert ineligible(text) is None


@pytest.mark.parametrize("text", REFUSED[Ineligible.TIME])
def test_time_words_do_no_harm_where_answers_live_briefly(text: str) -> None:
    assert ineligible(text, realtime=True) is None


def test_the_limit_of_length_is_inclusive() -> None:
    text = ("how do i bake " * 40)[:MAX_CHARACTERS]
    assert ineligible(text) is None
    assert ineligible(text + "s") is Ineligible.LENGTH
