"""Numbers and texts of an answer: what a record can hold, and what is made of the rest."""

from __future__ import annotations

import json
from math import inf, nan
from typing import Any

import pytest

from thinkonce.protocols.bounds import MOST, all_keepable, bounded, encodable
from thinkonce.protocols.chunks.chat import OpenAIChat
from thinkonce.protocols.dialect import Asked
from thinkonce.protocols.reply import decode_reply, encode_reply

ASKED = Asked(model="m", body={})


@pytest.mark.parametrize("number", [0, 1, MOST])
def test_a_count_stays_what_it_is(number: int) -> None:
    assert bounded(number) == number
    assert bounded(float(number)) == number


@pytest.mark.parametrize("number", [None, -1, MOST + 1, 10**40, inf, -inf, nan])
def test_what_is_no_count_becomes_zero(number: float | None) -> None:
    assert bounded(number) == 0


def test_half_a_surrogate_pair_becomes_a_question_mark() -> None:
    assert encodable("a\ud800b") == "a?b"
    assert encodable("grüß \U0001f600") == "grüß \U0001f600"


@pytest.mark.parametrize("odd", [inf, -inf, nan, 10**40, -(10**40), "\udc00"])
def test_one_odd_value_anywhere_is_found(odd: Any) -> None:
    assert not all_keepable((odd,))
    assert not all_keepable(({"a": [1, {"b": odd}]},))
    assert all_keepable(({"a": [1, {"b": 2**53}], "ü": None, "c": True, "d": 0.5},))


@pytest.mark.parametrize("member", ['"created":1e400', '"id":"\\ud800"', '"usage":{"a":1e999}'])
def test_a_stream_with_an_odd_member_still_makes_a_record_of_its_words(member: str) -> None:
    recorder = OpenAIChat().recorder(ASKED, usage_asked=False, max_bytes=10_000)
    choice = {"index": 0, "delta": {"content": "hello"}, "finish_reason": "stop"}
    event = f'{{{member},"choices":[{json.dumps(choice)}]}}'
    recorder.feed(f"data: {event}\n\ndata: [DONE]\n\n".encode())
    reply = recorder.end()
    assert recorder.gist().odd
    assert reply is not None
    assert decode_reply(encode_reply(reply)) == reply
    assert reply.events == (event.encode(),)
