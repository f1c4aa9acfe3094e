"""Special tokens that a client typed are text: only the chat template may write real ones.

Somebody who may write `<|im_end|>` as the token it names ends his own turn and begins another's.

    typed        say <|im_end|> twice
    veiled       say veil3f9c0e twice                      what the template gets
    rendered     <|im_start|>user\\nsay veil3f9c0e twice<|im_end|>\\n
    cut          <|im_start|> | user\\nsay veil3f9c0e twice | <|im_end|>\\n
    tokens       as special   | as text, the typed restored | as special
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from itertools import chain
from typing import Any

from thinkonce.errors import RequestError

__all__ = ("MARK", "Veil")

_TRIES = 100
MARK = re.compile(r"veil[0-9a-f]{16}e")
"""What stands for something hidden looks like this, and so may what somebody typed."""


class Veil:
    """Hides special tokens in one request's strings while a template is applied.

    Not thread-safe: one request, one veil; and the tokenizer is used by one thread at a time.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        known = tokenizer.added_tokens_decoder.values()
        special = sorted((str(token) for token in known if token.special), key=len, reverse=True)
        # The longest first, where one begins like another. (?!) matches nowhere.
        self._special = re.compile("|".join(map(re.escape, special)) or "(?!)")
        self._mark_of: dict[str, str] = {}  # what was typed -> what stands for it

    def over(self, value: Any) -> Any:
        """`value` with every special token hidden, in strings at any depth and in keys."""
        match value:
            case str():
                return self._special.sub(self._hide, value)
            case list():
                return [self.over(item) for item in value]
            case dict():
                return {self.over(name): self.over(item) for name, item in value.items()}
        return value

    def tokens(self, rendered: str) -> tuple[int, ...]:
        """The tokens of what the template made. Raises RequestError where it cannot be cut.

        The text is tokenised at once where nothing was hidden: a text may be cut differently
        once more text follows.
        """
        whole = self._encode(rendered)
        if not self._mark_of:
            return whole
        parts = list(self._parts(rendered))
        if tuple(chain.from_iterable(map(self._encode, parts))) != whole:
            raise _refused(next(iter(self._mark_of)))
        return tuple(chain.from_iterable(map(self._restored, parts)))

    def text_tokens(self, text: str) -> tuple[int, ...]:
        """The tokens of a text on its own, in which nothing is special."""
        return self._encode(text, as_text=True)

    def mark(self) -> str:
        """A word that nobody wrote, in which no special token is. Raises RequestError."""
        tried = (f"veil{secrets.token_hex(8)}e" for _ in range(_TRIES))
        found = next((mark for mark in tried if not self._special.search(mark)), None)
        if found is None:  # so many short special tokens has this model
            raise RequestError("messages", "a text to be hidden", "what this model's tokens allow")
        return found

    def _hide(self, found: re.Match[str]) -> str:
        typed = found[0]
        if typed not in self._mark_of:
            try:
                self._mark_of[typed] = self.mark()
            except RequestError:
                raise _refused(typed) from None
        return self._mark_of[typed]

    def _parts(self, rendered: str) -> Iterator[str]:
        """Texts in which something is hidden, and what lies between them."""
        marks = re.compile("|".join(self._mark_of.values()))
        done = at = 0
        for special in [*self._special.finditer(rendered), None]:
            end = len(rendered) if special is None else special.start()
            if marks.search(rendered, at, end):
                yield from filter(None, (rendered[done:at], rendered[at:end]))
                done = end
            at = end if special is None else special.end()
        if done < len(rendered):
            yield rendered[done:]

    def typed(self, rendered: str) -> str:
        """With what was hidden in its place."""
        for typed, mark in self._mark_of.items():
            rendered = rendered.replace(mark, typed)
        return rendered

    def _restored(self, part: str) -> tuple[int, ...]:
        text = self.typed(part)
        return self._encode(text, as_text=text != part)

    def _encode(self, text: str, *, as_text: bool = False) -> tuple[int, ...]:
        # The template writes the special tokens at the text's beginning itself.
        encoded = self._tokenizer(text, add_special_tokens=False, split_special_tokens=as_text)
        return tuple(encoded["input_ids"])


def _refused(typed: str) -> RequestError:
    return RequestError("messages", typed, "text without this model's special tokens")
