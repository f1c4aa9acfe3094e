"""What travels between the flow and whoever finds stored answers to a question in other words.

request ──► Likeness.find ──► Matched: the key of a stored entry ──► the flow reads it from the
                                                                     tiers as any other
answer made ──► Likeness.hint ──► Entry.hint: what the next question is compared with
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

if TYPE_CHECKING:
    from thinkonce.entry import Entry
    from thinkonce.outcome import Match
    from thinkonce.tiers.tier import Key

__all__ = ("Hint", "Likeness", "Matched", "Wording")

OVERHEAD = 300  # bytes of a hint besides what it holds: five objects, or a row and its indexes


class Hint(msgspec.Struct, frozen=True, gc=False):
    """What an entry answers, for questions in other words.

    `partition` is a keyed digest (32 bytes) of all of a request that must be equal; `text` the
    question as it was asked. `vector` is packed (`meaning.packed`) and made by `embedder`; b""
    where it was not there in time. `fingerprint` is the lexical matcher's (`meaning.lexical`).
    `member`: a keyed digest of who asked (`Wording`).
    """

    partition: bytes
    text: str
    embedder: str = ""
    vector: bytes = b""
    fingerprint: bytes = b""
    member: bytes = b""

    @property
    def size(self) -> int:
        """Bytes it takes, about."""
        return len(self.text) * 2 + len(self.vector) + len(self.fingerprint) + OVERHEAD


class Wording(msgspec.Struct, frozen=True, gc=False):
    """The question of a request, and `partition`: a keyed digest (32 bytes) of all else of it.

    `tools`: tools are offered, or have answered. `member`: where several clients are one tenant,
    a keyed digest of the one who asks, told by its key; b"" where there is but one, or none has
    shown a key.
    """

    text: str
    partition: bytes
    tools: bool = False
    member: bytes = b""


@dataclass(frozen=True, slots=True)
class Matched:
    """A stored entry that answers the request, as far as its question says.

    `similarity`: 0 to 1. `question` is the entry's. `audit`: the model is to be asked as well, in
    the background, so that both answers can be compared.
    """

    key: Key
    match: Match
    similarity: float
    question: str
    audit: bool = False


class Likeness(Protocol):
    """Of one request. Thread-safe in that its methods are called one after the other."""

    def find(self) -> Matched | None:
        """Blocks, for tens of milliseconds at most. Raises nothing of its own."""
        ...

    async def find_async(self) -> Matched | None:
        """`find` in a thread."""
        ...

    def peek(self) -> tuple[Matched | None, dict[str, Any]]:
        """As `find`, for who only wants to know: counts nothing. And the evidence, of which `why`
        says in a word why nothing was found."""
        ...

    def refuse(self) -> bool:
        """What `find` would give is wrong for this question: never again. False: it gives nothing.
        Blocks as `find` does."""
        ...

    def hint(self) -> Hint | None:
        """For the entry that was made of the model's answer. Does not wait."""
        ...

    def made(self, entry: Entry) -> None:
        """The model has answered, and `entry` is kept. Returns at once."""
        ...
