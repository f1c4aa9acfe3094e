"""What is remembered of answers that were not stored."""

from __future__ import annotations

from thinkonce.engine.refusals import Refusals
from thinkonce.entry import Entry, Meta
from thinkonce.flights.singleflight import Fate, Landing
from thinkonce.outcome import Reason
from thinkonce.steps import Made


def landed(refused: Reason | None) -> Landing:
    return Landing(Fate.COALESCED, Made(None, Entry(None, b"", Meta()), refused))


def test_the_latest_refusal_counts_until_an_answer_is_stored() -> None:
    known = Refusals()
    known.landed(b"k", landed(Reason.LENGTH), 1.0)
    known.landed(b"k", landed(Reason.EMPTY), 2.0)
    found = known.of(b"k")
    assert found is not None
    assert (found.reason, found.at) == (Reason.EMPTY, 2.0)
    known.landed(b"k", landed(None), 3.0)
    assert known.of(b"k") is None


def test_a_failed_call_says_how_it_failed_in_few_words() -> None:
    known = Refusals()
    known.landed(b"k", Landing(Fate.FAILED, error=ValueError("x" * 1000)), 1.0)
    found = known.of(b"k")
    assert found is not None
    assert (found.reason, len(found.detail)) == (Reason.ERROR, 200)


def test_the_oldest_are_forgotten() -> None:
    known = Refusals(capacity=3)
    for number in range(5):
        known.landed(bytes([number]), landed(Reason.LENGTH), float(number))
    known.landed(bytes([2]), landed(Reason.LENGTH), 9.0)
    known.landed(bytes([5]), landed(Reason.LENGTH), 10.0)
    assert [known.of(bytes([number])) is not None for number in range(6)] == [
        False, False, True, False, True, True,
    ]  # fmt: skip
    assert len(known) == 3
