"""What of an answer may be shown so far, given the texts that must stop it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from thinkonce.kv.generation.generator import Token
from thinkonce.kv.serving.answers.detokenise import Detokeniser

__all__ = ("Piece", "Transcript", "overlap")


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that may go out now, and the tokens it came from."""

    text: str
    tokens: tuple[Token, ...]


class Transcript:
    """Collects tokens, gives out text, and stops at the first stop text.

    A stop text may begin in one token and end in another, so the longest tail that could still
    become one is held back.

        decoded   The capital is Par
                                 ^^^  held back while a stop text begins with "Par"

    Not thread-safe: one answer, one transcript.
    """

    def __init__(self, detokeniser: Detokeniser, stops: Sequence[str]) -> None:
        self._detokeniser = detokeniser
        self._stops = tuple(stops)
        self._held = ""
        self._given = 0  # characters given out
        self._waiting: deque[tuple[int, Token]] = deque()  # where its text begins, the token
        self.stop: str | None = None  # the text that was met

    def push(self, token: Token) -> Piece:
        """The piece this token releases; `stopped` is true once a stop text was met."""
        self._waiting.append((self._given + len(self._held), token))
        self._held += self._detokeniser.push(token.id)
        found = [(at, stop) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            at, self.stop = min(found)
            return self._give(at)
        return self._give(len(self._held) - self._tail())

    @property
    def stopped(self) -> bool:
        return self.stop is not None

    def finish(self) -> Piece:
        """What was held back, once it is certain that nothing follows."""
        piece = self._give(len(self._held))
        rest = tuple(token for _, token in self._waiting)
        self._waiting.clear()
        return Piece(piece.text, piece.tokens + rest)

    def _tail(self) -> int:
        """How many characters at the end could be the beginning of a stop text."""
        return max((overlap(self._held, stop) for stop in self._stops), default=0)

    def _give(self, length: int) -> Piece:
        text, self._held = self._held[:length], self._held[length:]
        self._given += length
        tokens = []
        while self._waiting and self._waiting[0][0] < self._given:
            tokens.append(self._waiting.popleft()[1])
        return Piece(text, tuple(tokens))


def overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
