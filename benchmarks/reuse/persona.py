"""A schema after the persona of Prompt Cache: traits of which a prompt takes one each."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from thinkonce.kv.modules.schema import Message, Module, Parameter, Schema, Union

__all__ = ("QUESTIONS", "SCHEMA", "choices")

TRAITS = {
    "age": ("a young adult", "in the middle of life", "retired"),
    "home": ("from a village by the sea", "from a large city", "from the mountains"),
    "work": ("a nurse", "a carpenter", "a teacher of mathematics"),
    "family": ("a parent of three", "single", "married without children"),
    "food": ("fond of fish", "a vegetarian", "fond of sweet things"),
    "travel": ("a traveller by train", "a rider of bicycles", "somebody who stays at home"),
    "music": ("a player of the piano", "a singer in a choir", "a listener to the radio"),
    "temper": ("patient and calm", "quick and cheerful", "careful and a little shy"),
}
SAYINGS = (
    "When it comes to {trait}, this person is {member}, and friends would say so at once.",
    "Being {member} decides how the days of the week are spent, and how the evenings end.",
    "Somebody who is {member} looks at prices, at distances and at the weather in a way of "
    "their own, and gives advice to others from that experience.",
    "In a conversation it does not take long until it shows that this person is {member}.",
    "Plans are made with it in mind: what is too loud, too far or too late for somebody who is "
    "{member} is left out without a word.",
    "A good answer to a question about {trait} takes up that the person is {member}, says what "
    "follows from it, and does not repeat what is known.",
    "It was not always so, but for many years now this person has been {member}.",
    "Asked for a reason, the person would smile and say: that is how it is, I am {member}.",
)
QUESTIONS = (
    "Plan a day off for me.",
    "What should I give my neighbour as a present?",
    "Write three sentences about my next holiday.",
    "Which book would you recommend to me?",
)


def _member(trait: str, number: int, member: str) -> Module:
    said = (saying.format(trait=trait, member=member) for saying in SAYINGS)
    return Module(f"{trait}-{number}", (" ".join(said) + "\n",))


SCHEMA = Schema(
    "persona",
    (
        Message(
            "system",
            (
                "You know the person who asks, and answer as a friend would who knows all of the "
                "following about them.\n",
                Module("name", ("The person is called ", Parameter("who", 6), ".\n")),
                *(
                    Union(tuple(_member(trait, n, each) for n, each in enumerate(members)))
                    for trait, members in TRAITS.items()
                ),
            ),
        ),
    ),
)


def choices() -> Iterator[tuple[str, ...]]:
    """Of a member of each trait, all there are."""
    numbers = product(*(range(len(members)) for members in TRAITS.values()))
    for each in numbers:
        yield tuple(f"{trait}-{number}" for trait, number in zip(TRAITS, each, strict=True))
