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
from typing import Any

from thinkonce.errors import RequestError

__all__ = ("Veil",)


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
        self._stem = f"veil{secrets.token_hex(8)}e"
        self._marks = re.compile(f"{self._stem}([0-9]+)e")
        self._typed: list[str] = []

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
        if not self._typed:
            return whole
        parts = list(self._parts(rendered))
        if sum(map(self._encode, parts), ()) != whole:
            raise RequestError(
                "messages", self._typed[0], "text without this model's special tokens"
            )
        return sum(map(self._restored, parts), ())

    def _hide(self, found: re.Match[str]) -> str:
        self._typed.append(found[0])
        return f"{self._stem}{len(self._typed) - 1}e"

    def _parts(self, rendered: str) -> Iterator[str]:
        """Texts in which something is hidden, and what lies between them."""
        done = at = 0
        for special in [*self._special.finditer(rendered), None]:
            end = len(rendered) if special is None else special.start()
            if self._marks.search(rendered, at, end):
                yield from filter(None, (rendered[done:at], rendered[at:end]))
                done = end
            at = end if special is None else special.end()
        if done < len(rendered):
            yield rendered[done:]

    def _restored(self, part: str) -> tuple[int, ...]:
        text, hidden = self._marks.subn(lambda found: self._typed[int(found[1])], part)
        return self._encode(text, as_text=bool(hidden))

    def _encode(self, text: str, *, as_text: bool = False) -> tuple[int, ...]:
        # The template writes the special tokens at the text's beginning itself.
        encoded = self._tokenizer(text, add_special_tokens=False, split_special_tokens=as_text)
        return tuple(encoded["input_ids"])
