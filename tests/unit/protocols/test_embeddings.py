"""Embeddings taken apart and put together, without a gateway."""

from __future__ import annotations

import base64
import json
import math
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkonce.protocols.openai_embeddings import OpenAIEmbeddings, vector_in_form

SPEECH = OpenAIEmbeddings()
floats = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1)


@given(floats)
def test_numbers_survive_the_way_through_base64(numbers):
    text = msgspec.json.encode(numbers)
    there = vector_in_form(text, "base64")
    raw = base64.b64decode(json.loads(there))
    assert struct.unpack(f"<{len(numbers)}f", raw) == tuple(numbers)
    back = json.loads(vector_in_form(there, "float"))
    assert back == numbers
    assert [math.copysign(1, n) for n in back] == [math.copysign(1, n) for n in numbers]


@given(st.lists(st.floats(-1e30, 1e30), min_size=1))
def test_base64_rounds_to_32_bits_and_no_further(numbers):
    there = vector_in_form(msgspec.json.encode(numbers), "base64")
    back = json.loads(vector_in_form(there, "float"))
    assert back == [struct.unpack("<f", struct.pack("<f", number))[0] for number in numbers]


@pytest.mark.parametrize(
    "text", [b'"not base64!"', b'"AAA="', b"[1e400]", b"[true]", b'["a"]', b"[[1]]", b"[1e39]"]
)
def test_what_is_no_vector_takes_no_other_form(text):
    assert vector_in_form(text, "base64" if text[:1] == b"[" else "float") is None


@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_what_json_cannot_write_stays_base64(odd):
    text = b'"%b"' % base64.b64encode(struct.pack("<f", odd))
    assert vector_in_form(text, "float") is None
    assert vector_in_form(text, "base64") == text


def test_an_unknown_form_is_handed_out_as_it_came():
    assert vector_in_form(b"[1,2]", "int8") == b"[1,2]"


@pytest.mark.parametrize(
    ("given", "items"),
    [
        ("text", ["text"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [[1, 2]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
        ([], None),
        ([True], None),
        (["a", 1], None),
        ([[1], "a"], None),
        ([[]], None),
        (None, None),
        ({"text": "a"}, None),
    ],
)
def test_a_request_is_its_inputs(given, items):
    batch = SPEECH.batch({"input": given})
    assert (batch.items if batch else None) == items


def test_the_form_does_not_count_unless_nothing_is_known_of_it():
    common = {"model": "m", "dimensions": 3}
    for form in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
        assert SPEECH.identity({"input": "a", "kv_cache": {}, **common, **form}) == common
    odd = {"encoding_format": "ubinary"}
    assert SPEECH.identity({"input": "a", **common, **odd}) == common | odd


def test_a_request_for_some_inputs_keeps_all_else():
    raw = b'{"model": "m", "input": ["a", "b"], "x": {"input": [1]}}'
    assert json.loads(SPEECH.with_items(raw, ["b"])) == {
        "model": "m",
        "input": ["b"],
        "x": {"input": [1]},
    }


def answer(*indices, usage=None):
    data = [{"index": index, "embedding": [index]} for index in indices]
    return json.dumps({"data": data, "model": "m", "usage": usage}).encode()


def test_vectors_come_in_the_order_of_the_inputs():
    replies = SPEECH.read(answer(2, 0, 1), ["a", "b", "c"])
    assert [reply.body for reply in replies] == [b"[0]", b"[1]", b"[2]"]


@pytest.mark.parametrize("indices", [(), (0,), (0, 0), (0, 2), (0, 1, 2)])
def test_anything_but_one_vector_each_is_nothing(indices):
    assert SPEECH.read(answer(*indices), ["a", "b"]) is None


@given(st.lists(st.text(max_size=50), min_size=1, max_size=30), st.integers(1, 10**6))
def test_the_tokens_of_a_batch_are_shared_out_in_full(texts, total):
    usage = {"prompt_tokens": total, "total_tokens": total}
    replies = SPEECH.read(answer(*range(len(texts)), usage=usage), texts)
    shares = [reply.prompt_tokens for reply in replies]
    assert sum(shares) == total
    assert min(shares) >= 0
    told = json.loads(SPEECH.join(replies, "float"))["usage"]
    assert told["prompt_tokens"] == told["total_tokens"] == total
    assert ("estimated" in told) is (len(texts) > 1)
