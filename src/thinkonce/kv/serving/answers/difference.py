"""Where two prompts part, as people see it: message, character, token, and what each of them says.

Tokens may differ where the text does not: a text is cut into tokens otherwise once more follows,
and whoever sends token ids may cut it where the tokenizer would not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from thinkonce.kv.prefix.causes import Departure
from thinkonce.kv.weights.vocabulary import UNFINISHED

__all__ = ("Difference", "compared")

_BEFORE, _AFTER = 24, 48  # characters of a text that are shown around the place
_CONTEXT = 16  # tokens before it: a first token's text may depend on what was before
_TOKENS = 8  # ids that are shown


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """`token` is the first one of the prompt that differs.

    `message` numbers the messages as the chat template gets them, the system text first: the
    number behind the last one where the other prompt has a message more; None for a prompt
    without messages. `character` counts in that message's text, or in the prompt;
    None where it is the template's own words that differ, a role for one. `known` and `asked` are
    the texts around the place, the tokens those from there on.
    """

    token: int
    message: int | None
    character: int | None
    known: str
    asked: str
    known_tokens: tuple[int, ...]
    asked_tokens: tuple[int, ...]


def compared(
    tokenizer: Any, prompt: Sequence[int], departure: Departure, contents: Sequence[str]
) -> tuple[bool, Difference]:
    """Whether the texts differ as far as both are known, and where.

    `contents`: the texts of the prompt's messages. Decodes what lies before the place.
    """
    place, rest = departure.token, departure.known
    start = _start(tokenizer, prompt, place)
    head = _text(tokenizer, prompt[:start])
    known = _text(tokenizer, (*prompt[start:place], *rest))
    asked = _text(tokenizer, prompt[start : place + 2 * len(rest) + _CONTEXT])
    common = _common(known, asked)
    differs = common < min(len(known), len(asked))
    if not differs:
        common = len(_text(tokenizer, prompt[start:place]))
    shown = slice(max(0, common - _BEFORE), common + _AFTER)
    message, character = _located(head + asked[:common], contents)
    return differs, Difference(
        token=place,
        message=message,
        character=character,
        known=known[shown],
        asked=asked[shown],
        known_tokens=tuple(rest[:_TOKENS]),
        asked_tokens=tuple(prompt[place : place + _TOKENS]),
    )


def _start(tokenizer: Any, prompt: Sequence[int], place: int) -> int:
    """Somewhat before `place`, and not within a character."""
    start = max(0, place - _CONTEXT)
    while start and _text(tokenizer, prompt[start : place + 1]).startswith(UNFINISHED):
        start -= 1
    return start


def _text(tokenizer: Any, tokens: Sequence[int]) -> str:
    """Without a last character that is not complete."""
    text = tokenizer.decode(
        list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    return str(text).rstrip(UNFINISHED)


def _common(known: str, asked: str) -> int:
    """How many characters two texts begin with alike."""
    pairs = enumerate(zip(known, asked, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(known), len(asked)))


def _located(before: str, contents: Sequence[str]) -> tuple[int | None, int | None]:
    """The message in which this beginning of a prompt ends, and how many of its characters."""
    if not contents:
        return None, len(before)
    done = 0
    for number, content in enumerate(contents):
        found = next((end for end in _ends(before, content, done)), None)
        if found is None:
            return number, _begun(before, content, done)
        if found == len(before) and content:
            return number, len(content)
        done = found
    return len(contents), None


def _ends(before: str, content: str, start: int) -> Iterator[int]:
    """Where a message's text ends that lies in it as a whole; templates may strip it."""
    for form in dict.fromkeys((content, content.strip())):
        if (at := before.find(form, start)) >= 0:
            yield at + len(form)


def _begun(before: str, content: str, start: int) -> int | None:
    """How many characters of a message's text the prompt's beginning ends with."""
    for form in dict.fromkeys((content, content.strip())):
        at = before.find(form[:_BEFORE], start)
        while form and at >= 0:
            if form.startswith(before[at:]):
                return len(before) - at
            at = before.find(form[:_BEFORE], at + 1)
        # Fewer characters are there than were looked for.
        for length in range(min(_BEFORE, len(before) - start), 0, -1):
            if form.startswith(before[len(before) - length :]):
                return length
    return None
