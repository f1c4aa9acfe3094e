"""What calibration promises is said once where it is nothing: it looks broken otherwise."""

from __future__ import annotations

import logging

import pytest

from thinkonce import Cache, cached


def asked(max_error: float) -> None:
    with Cache(semantic={"max_error": max_error}) as cache:

        @cached(cache=cache)
        def ask(prompt: str) -> str:
            return f"about {prompt}"

        for prompt in (
            "Why is the sky blue today at noon?",
            "How tall is Ben Nevis?",
            "怎么退货？",
        ):
            ask(prompt)
            ask(prompt + " Really?")


def test_it_is_said_once_a_language(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "thinkonce.semantic"):
        asked(0.01)
    said = [line for line in caplog.messages if "serves nothing" in line]
    assert len(said) == 2
    assert any(
        "in English at max_error 0.01" in line and "from max_error 0.03 on" in line for line in said
    )


def test_where_it_serves_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "thinkonce.semantic"):
        asked(0.05)
    assert "serves nothing" not in caplog.text
