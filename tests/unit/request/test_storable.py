"""Which answers may be kept."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from thinkonce.outcome import Reason
from thinkonce.protocols.chunks.chat import OpenAIChat
from thinkonce.protocols.dialect import Asked
from thinkonce.protocols.reply import Gist
from thinkonce.request.storable import StoreRules, refusal

GOOD = Gist(done=True, finishes=("stop",), texts=("hello",), size=100)
FINISHES = OpenAIChat.finish_reasons


def why(asked: Asked | None = None, rules: StoreRules | None = None, **changed: Any) -> Any:
    gist = msgspec.structs.replace(GOOD, **changed)
    return refusal(asked or Asked(), gist, FINISHES, rules or StoreRules())


@pytest.mark.parametrize("finish", ["stop", "tool_calls", "function_call"])
def test_a_complete_answer_is_kept(finish: str) -> None:
    assert why(finishes=(finish,)) is None


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"status": 500}, Reason.ERROR),
        ({"status": 201}, Reason.ERROR),
        ({"status": 429}, Reason.ERROR),
        ({"failed": True}, Reason.ERROR),
        ({"done": False}, Reason.ABORTED),
        ({"oversized": True}, Reason.TOO_LARGE),
        ({"size": (1 << 20) + 1}, Reason.TOO_LARGE),
        ({"finishes": ("length",)}, Reason.LENGTH),
        ({"finishes": ("content_filter",)}, Reason.CONTENT_FILTER),
        ({"finishes": ("error",)}, Reason.ERROR),
        ({"finishes": (None,)}, Reason.INCOMPLETE),
        ({"finishes": ("tired",)}, Reason.INCOMPLETE),
        ({"finishes": ()}, Reason.INCOMPLETE),
        ({"finishes": ("stop", "stop")}, Reason.INCOMPLETE),
        ({"empty": True}, Reason.EMPTY),
    ],
)
def test_anything_else_is_not(changed: dict[str, Any], reason: Reason) -> None:
    assert why(**changed) is reason


def test_an_answer_of_exactly_the_size_that_is_kept_is_kept() -> None:
    assert why(size=1 << 20) is None
    assert why(rules=StoreRules(max_bytes=99)) is Reason.TOO_LARGE


def test_all_choices_or_nothing() -> None:
    two = Asked(answers=2)
    assert why(two, finishes=("stop", "tool_calls")) is None
    assert why(two, finishes=("stop", "length")) is Reason.LENGTH
    assert why(two, finishes=("stop", None)) is Reason.INCOMPLETE
    assert why(two, finishes=("stop",)) is Reason.INCOMPLETE


def test_text_must_be_json_only_where_json_was_asked_for() -> None:
    json_mode = Asked(wants_json=True)
    assert why(texts=("not json",)) is None
    assert why(json_mode, texts=("not json",)) is Reason.INVALID_JSON
    assert why(json_mode, texts=('{"a":1}', '{"a":')) is Reason.INVALID_JSON
    assert why(json_mode, texts=('{"a":1}', "[]")) is None
    assert why(json_mode, texts=()) is None, "a tool call has no text"
    assert why(json_mode, texts=("[" * 100_000,)) is Reason.INVALID_JSON


@pytest.mark.parametrize(
    ("limit", "asked", "reason"),
    [
        (None, 2.0, None),
        (0.0, 0.0, None),
        (0.0, 0.1, Reason.TEMPERATURE),
        (0.9, None, Reason.TEMPERATURE),  # omitted is the provider's default, not 0
        (1.0, None, None),
    ],
)
def test_a_temperature_limit_is_kept(
    limit: float | None, asked: float | None, reason: Reason | None
) -> None:
    assert why(Asked(temperature=asked), StoreRules(max_temperature=limit)) is reason


def test_a_stream_can_be_judged_at_its_last_chunk_before_the_end_mark() -> None:
    under_way = msgspec.structs.replace(GOOD, done=False)
    assert refusal(Asked(), under_way, FINISHES, StoreRules(), so_far=True) is None
    cut = msgspec.structs.replace(under_way, finishes=("length",))
    assert refusal(Asked(), cut, FINISHES, StoreRules(), so_far=True) is Reason.LENGTH
