"""Where sentences end: English and Chinese marks, in whatever tokens they are."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_model import make_tokenizer

from thinkonce.kv.sentence.ends import LONGEST, SentenceEnds


@cache
def tokenizer() -> Any:
    return make_tokenizer()


def cut(text: str) -> list[str]:
    tokens = tokenizer()(text)["input_ids"]
    spans = SentenceEnds(tokenizer()).sentences(tokens)
    return [tokenizer().decode(tokens[span.start : span.stop]) for span in spans]


@pytest.mark.parametrize(
    "sentences",
    [
        ["He came.", "She left!", "Why?", "Nobody knows;", "or says."],
        ['He said "no."', "(She did not.)", "So?!", "Yes..."],
        ["It cost 3.50 at example.com in all.", "Cheap."],
        ["一个模型应该只思考一次。", "法国的首都是哪里？", '他说："不知道！"', "她走了；"],
        ["Half English, 一半中文。", "Yes."],
        ["no end at all"],
    ],
)
def test_marks_end_sentences_with_what_closes_them(sentences: list[str]) -> None:
    assert [each.strip() for each in cut("\n ".join(sentences))] == sentences
    if sentences[0].isascii():
        assert [each.strip() for each in cut(" ".join(sentences))] == sentences


def test_so_do_lines() -> None:
    assert cut("def f(x):\n    return x.y\n\nf(3)") == ["def f(x):\n    ", "return x.y\n\n", "f(3)"]


def test_a_mark_may_be_spread_over_several_tokens() -> None:
    assert len(tokenizer()("…")["input_ids"]) == 3, "a byte each"
    assert cut("brown…fox") == ["brown…", "fox"]


def test_the_end_of_a_turn_ends_a_sentence() -> None:
    assert cut("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n") == [
        "<|im_start|>",
        "user\n",
        "Hi<|im_end|>\n<|im_start|>",
        "assistant\n",
    ]


def test_what_has_no_mark_is_cut_all_the_same() -> None:
    tokens = tokenizer()("brown fox " * 200)["input_ids"]
    spans = SentenceEnds(tokenizer()).sentences(tokens)
    assert {len(span) for span in spans[:-1]} == {LONGEST}
    assert spans[-1].stop == len(tokens)


@given(st.text(alphabet="aB1 .!?。！”\"')\n;", max_size=80), st.integers(3, 40))
def test_spans_cover_all_and_are_what_is_found_token_by_token(text: str, longest: int) -> None:
    tokens, ends = tokenizer()(text)["input_ids"], SentenceEnds(tokenizer())
    spans = ends.sentences(tokens, longest)
    assert [place for span in spans for place in span] == list(range(len(tokens)))
    assert all(len(span) <= longest for span in spans)
    starts = {0} if tokens else set()
    for place in range(1, len(tokens)):
        if ends.between(tokens[:place], tokens[place]):
            starts.add(place)
    assert starts <= {span.start for span in spans}
    assert {span.start for span in ends.sentences(tokens, 10_000)} == starts
