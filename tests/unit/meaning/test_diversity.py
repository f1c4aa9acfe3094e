"""One answer for ever new questions is told of, once."""

from __future__ import annotations

from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from thinkonce.meaning import diversity
from thinkonce.meaning.diversity import LEAST_HITS, MOST_NAMESPACES, WINDOW, Crowded, Diversity

ONE, OTHER = b"1" * 32, b"2" * 32


def fed(hits, namespace="faq"):
    """What was told of while `hits` came, and the whole."""
    whole = Diversity()
    told = [whole.served(namespace, digest, question) for digest, question in hits]
    return [each for each in told if each], whole


def others(count):
    return [(bytes([number % 250]) * 32, f"other {number}") for number in range(count)]


def test_an_entry_that_answers_ever_new_questions_is_told_of_once():
    told, whole = fed([*others(30), *((ONE, f"question {n}") for n in range(30))])
    assert told == [Crowded("faq", ONE, 20, 20 / 50)]
    assert whole.crowded() == [Crowded("faq", ONE, 30, 0.5)]


def test_the_same_question_again_and_again_is_no_crowd():
    told, _ = fed([*others(10), *[(ONE, "one"), (ONE, "another")] * 50])
    assert told == []


def test_a_small_share_is_no_crowd():
    told, _ = fed([*others(900), *((ONE, f"question {n}") for n in range(60))])
    assert told == []


def test_few_hits_say_nothing():
    told, _ = fed([(ONE, f"question {n}") for n in range(LEAST_HITS - 1)])
    assert told == []


def test_namespaces_are_told_apart_and_their_number_is_bounded():
    whole = Diversity()
    for number in range(MOST_NAMESPACES + 10):
        whole.served(f"n{number}", ONE, "a")
    assert whole.spread("n0") is None
    assert whole.spread(f"n{MOST_NAMESPACES + 9}") == 1.0


def test_spread_is_entries_per_hit():
    _, whole = fed([(ONE, "a"), (ONE, "b"), (OTHER, "c"), (ONE, "d")])
    assert whole.spread("faq") == 0.5


class AgainstAList(RuleBasedStateMachine):
    """The window's numbers are those of a plain list of the last hits."""

    def __init__(self):
        super().__init__()
        self.window = diversity.WINDOW
        diversity.WINDOW = 60  # so that it is run through
        self.whole, self.hits = Diversity(), deque(maxlen=60)

    @rule(entry=st.sampled_from([ONE, OTHER, b"3" * 32]), questions=st.integers(1, 40))
    def served(self, entry, questions):
        for number in range(questions):
            self.hits.append((entry, f"q{number}"))
            self.whole.served("faq", entry, f"q{number}")

    @invariant()
    def spread_is_right(self):
        wanted = len({e for e, _ in self.hits}) / len(self.hits) if self.hits else None
        assert self.whole.spread("faq") == wanted

    @invariant()
    def crowds_are_right(self):
        for each in self.whole.crowded():
            mine = [question for entry, question in self.hits if entry == each.digest]
            assert (each.questions, each.share) == (len(set(mine)), len(mine) / len(self.hits))

    def teardown(self):
        diversity.WINDOW = self.window


TestAgainstAList = AgainstAList.TestCase
TestAgainstAList.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)


def test_the_window_is_as_long_as_it_says():
    _, whole = fed([(ONE, "a")] * WINDOW + [(OTHER, "b")] * WINDOW)
    assert whole.spread("faq") == 1 / WINDOW
