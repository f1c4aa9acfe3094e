"""The normal form: what dress is taken off, and what must stay."""

from __future__ import annotations

import pytest

from thinkonce.meaning.text.analysis import analyse
from thinkonce.meaning.text.language import Language, language_of, same_language

FORMS = [
    ("Hi! Could you tell me: what's the LIMIT??", "what is the limit"),
    ("I don't know; can't you?", "i do not know can not you"),
    ("wont it work, thx", "will not it work"),
    ("  two\n\tspaces\u00a0here ", "two spaces here"),
    ("ＦＵＬＬ　ｗｉｄｔｈ１２", "full width 12"),
    ("it costs $20 or 5%", "it costs $ 20 or 5 %"),
    ("Please, how do I log in? Many thanks in advance!", "how do i log in"),
    ("sorry, ok, hello", "hello"),
    ("請問，限額是多少呢？", "限额是多少"),
    ("你好，想问一下怎么还款，谢谢", "怎么还款"),
    ("亲，在吗？怎么退货", "怎么退货"),
    ("亲戚来了怎么办", "亲戚来了怎么办"),
    ("那个人是谁", "那个人是谁"),
    ("请假条怎么写", "请假条怎么写"),
    ("额度是多少", "额度是多少"),
    ("客服电话是多少", "客服电话是多少"),
    ("用 Python 写", "用python写"),
    ("谢谢", "谢谢"),
    ("", ""),
    ("？！…", ""),
]


@pytest.mark.parametrize(("text", "form"), FORMS)
def test_dress_is_taken_off_and_nothing_else(text: str, form: str) -> None:
    assert analyse(text).normal == form


@pytest.mark.parametrize("text", [text for text, _ in FORMS])
def test_a_normal_form_is_its_own_normal_form(text: str) -> None:
    once = analyse(text).normal
    assert analyse(once).normal == once


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("What is the capital of France?", Language.EN),
        ("reset password", Language.EN),
        ("Wie ist das Wetter und was kann ich machen?", Language.LATIN),
        ("¿Cómo puedo cambiar mi contraseña?", Language.LATIN),
        ("怎么还款", Language.ZH_HANS),
        ("為什麼這樣", Language.ZH_HANT),
        ("你好", Language.ZH),
        ("这样是什么意思", Language.ZH_HANS),
        ("用 Python 怎么读文件", Language.ZH_HANS),
        ("インストールの方法は", Language.JA),
        ("설치하는 방법", Language.KO),
        ("как установить", Language.OTHER),
        ("12345 !!", Language.NONE),
        ("", Language.NONE),
    ],
)
def test_a_language_is_told_from_a_few_words(text: str, language: Language) -> None:
    assert language_of(text) is language


def test_an_answer_stays_in_its_language() -> None:
    assert same_language(Language.ZH_HANS, Language.ZH_HANT)
    assert same_language(Language.NONE, Language.EN)
    assert not same_language(Language.EN, Language.ZH)
    assert not same_language(Language.EN, Language.LATIN)
    assert not same_language(Language.JA, Language.ZH)
