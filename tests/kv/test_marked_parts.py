"""Marked parts of messages become spans of a prompt, with the same tokens wherever they stand."""

from __future__ import annotations

import json
from typing import Any

import pytest
from small_model import TEMPLATE, make_tokenizer

from thinkonce.errors import RequestError
from thinkonce.kv.prefix.prompt import Prompt, Span
from thinkonce.kv.serving.requests.ask import Defaults, read_chat
from thinkonce.kv.serving.requests.messages import read_messages
from thinkonce.kv.serving.requests.prompt import chat_tokens

DEFAULTS = Defaults(temperature=1, top_p=1, top_k=0, max_tokens=16, vocabulary=400)
TEXTS = ("The quick brown fox.", "Read once, and remember.")


def part(text: str, **said: Any) -> dict[str, Any]:
    return {"type": "text", "text": text, **said}


def marked(text: str, name: str) -> dict[str, Any]:
    return part(text, kv_cache={"id": name})


def prompt(*parts: dict[str, Any], template: str = TEMPLATE, **fields: Any) -> Prompt:
    body = {"messages": [{"role": "user", "content": list(parts)}], **fields}
    return chat_tokens(make_tokenizer(template), read_chat(json.dumps(body).encode(), DEFAULTS))


def text_of(tokens: Any) -> str:
    return str(make_tokenizer().decode(list(tokens)))


def test_a_prompt_without_marked_parts_has_the_tokens_of_its_text() -> None:
    found = prompt(part("Read"), part(" once", kv_cache={"reuse": "exact"}), part("", kv_cache={}))
    text = "<|im_start|>user\nRead\n once\n<|im_end|>\n<|im_start|>assistant\n"
    whole = make_tokenizer()(text, add_special_tokens=False)["input_ids"]
    assert (list(found), found.spans) == (whole, ())


def test_a_document_has_the_same_tokens_in_any_order_and_its_span_says_where() -> None:
    one, other = (marked(text, f"doc-{place}") for place, text in enumerate(TEXTS))
    for parts in ((one, other), (other, one)):
        found = prompt(part("Read these."), *parts, part("Where?"))
        cut = {span.document: found[span.start : span.end] for span in found.spans}
        assert [span.document for span in found.spans] == [p["kv_cache"]["id"] for p in parts]
        for place, text in enumerate(TEXTS):
            alone = make_tokenizer()(text, add_special_tokens=False)["input_ids"]
            assert list(cut[f"doc-{place}"]) == alone
    plain = prompt(part("Read these."), part(TEXTS[1]), part(TEXTS[0]), part("Where?"))
    assert text_of(found) == text_of(plain)


def test_special_tokens_in_a_document_are_text() -> None:
    found = prompt(part("<|im_end|> before"), marked("say <|im_end|> twice", "d"))
    assert found.count(2) == 1, "the template's own"
    (span,) = found.spans
    assert text_of(found[span.start : span.end]) == "say <|im_end|> twice"


def test_a_template_that_changes_the_words_gets_them_and_no_part_is_marked() -> None:
    shouting = TEMPLATE.replace("message['content']", "message['content'] | upper")
    found = prompt(part("Read"), marked("Once", "d"), template=shouting)
    assert found.spans == ()
    assert "READ\nONCE" in text_of(found)


def test_what_looks_like_a_mark_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = "veil0123456789abcdefe"
    found = prompt(part(typed), marked(f"{typed} and <|im_end|>", "d"), part("<|im_end|>"))
    assert text_of(found).count(typed) == 2
    assert len(found.spans) == 1
    monkeypatch.setattr("thinkonce.kv.serving.requests.marks._MOST_PARTS", 2)
    with pytest.raises(RequestError, match="up to 2"):
        prompt(*[marked("x", "d")] * 3)


def test_breakpoints_alone_mark_nothing() -> None:
    breakpoint = {"type": "ephemeral"}
    assert prompt(part(TEXTS[0], cache_control=breakpoint)).spans == ()


def test_parts_of_anthropic_messages_are_marked_in_the_system_too() -> None:
    body = {
        "max_tokens": 1,
        "system": [part("Be brief."), marked(TEXTS[0], "a")],
        "messages": [{"role": "user", "content": [marked(TEXTS[1], "b"), part("Where?")]}],
    }
    ask, _ = read_messages(json.dumps(body).encode(), DEFAULTS)
    assert [s.document for s in chat_tokens(make_tokenizer(), ask).spans] == ["a", "b"]


def test_the_first_tokens_of_a_prompt_have_the_spans_that_lie_in_them() -> None:
    whole = Prompt(range(10), (Span(1, 3, document="a"), Span(4, 8, document="b")))
    assert whole.until(8).spans == whole.spans
    assert whole.until(7).spans == (whole.spans[0], Span(4, 7, document="b"))
    assert whole.until(4).spans == whole.spans[:1]
    assert whole.documents == ("a", "b")
    assert Prompt.of(whole) is whole
    assert Prompt.of([1, 2]).spans == ()


@pytest.mark.parametrize("length", [1, 3])
def test_an_empty_document_is_no_span(length: int) -> None:
    assert prompt(*[marked("", "a")] * length, part("x")).spans == ()
