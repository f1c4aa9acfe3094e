"""Questions that keep going to the model are counted in groups."""

from __future__ import annotations

import numpy as np

from thinkonce.meaning.unanswered import MOST_GROUPS, MOST_NAMESPACES, Group, Unanswered


def vector(place, nudge=0.0, dimensions=MOST_GROUPS + 50):
    found = np.zeros(dimensions, np.float32)
    found[place] = 1.0
    found[(place + 1) % dimensions] = nudge
    return found / np.linalg.norm(found)


def test_questions_alike_are_one_group_under_their_first():
    held = Unanswered()
    held.note("faq", "How do I reset it?", vector(3), "score")
    held.note("faq", "How can I reset it?", vector(3, 0.2), "number")
    held.note("faq", "Where is it?", vector(9), "score")
    held.note("faq", "Where is it kept?", vector(9, 0.1), "score")
    held.note("faq", "How to reset?", vector(3), "score")
    assert held.top("faq") == [
        Group("How do I reset it?", 3, 0, {"score": 2, "number": 1}),
        Group("Where is it?", 2, 0, {"score": 2}),
    ]


def test_what_was_asked_once_is_no_repetition():
    held = Unanswered()
    held.note("faq", "Why?", vector(1), "new")
    assert held.top("faq") == []


def test_what_is_asked_often_survives_a_flood_of_questions_asked_once():
    held = Unanswered()
    for _ in range(20):
        held.note("faq", "Often", vector(0), "new")
    for place in range(1, MOST_GROUPS + 40):
        held.note("faq", "Once", vector(place), "new")
    assert held.top("faq")[0] == Group("Often", 20, 0, {"new": 20})


def test_a_group_that_took_anothers_place_owns_up_to_its_error():
    held = Unanswered()
    for place in range(MOST_GROUPS):
        for _ in range(3):
            held.note("faq", "Old", vector(place), "new")
    for _ in range(2):
        held.note("faq", "New", vector(MOST_GROUPS + 5), "new")
    assert next(group for group in held.top("faq", MOST_GROUPS) if group.example == "New") == Group(
        "New", 5, 3, {"new": 2}
    )


def test_vectors_of_another_embedder_are_not_compared():
    held = Unanswered()
    for size in (8, 16):
        for _ in range(2):
            held.note("faq", f"{size}", vector(1, dimensions=size), "new")
    assert {group.example for group in held.top("faq")} == {"8", "16"}


def test_the_number_of_namespaces_is_bounded():
    held = Unanswered()
    for number in range(MOST_NAMESPACES + 5):
        held.note(f"n{number}", "a", vector(1), "new")
    assert len(held.namespaces()) == MOST_NAMESPACES
    assert "n0" not in held.namespaces()
