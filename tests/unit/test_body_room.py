"""Bytes of request bodies held at once."""

from __future__ import annotations

from thinkonce.web.bodies import Bodies


def test_no_more_is_held_than_there_is_room_for() -> None:
    bodies = Bodies(10)
    assert bodies.take(6)
    assert bodies.take(4)
    assert not bodies.take(1)
    assert bodies.held == 10, "what was refused is not counted"
    bodies.give_back(4)
    assert bodies.has_room(4)
    assert not bodies.has_room(5)


def test_whoever_is_alone_has_room_for_everything() -> None:
    bodies = Bodies(10)
    assert bodies.take(8)
    assert bodies.take(80, own=8)
    assert not bodies.take(1), "but nobody else meanwhile"
    bodies.give_back(88)
    assert bodies.take(11)


def test_without_a_bound_everything_has_room() -> None:
    bodies = Bodies()
    assert bodies.take(2**60)
    assert bodies.has_room(2**60)
