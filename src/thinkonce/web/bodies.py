"""How many bytes of request bodies are held at once.

Bytes count as they come, not as they are announced: else a few clients who announce much and send
nothing would keep everybody out. What is announced is only looked at: who could not be served is
told so before the body is sent.
"""

from __future__ import annotations

from math import inf

__all__ = ("Bodies",)


class Bodies:
    """`held` of `most` bytes are taken. Belongs to one event loop."""

    __slots__ = ("held", "most")

    def __init__(self, most: float = inf) -> None:
        self.most, self.held = most, 0

    def has_room(self, size: int, own: int = 0) -> bool:
        """For `size` bytes more; `own`: what the same request has taken before.

        Whoever is alone has room for everything: a body larger than `most` would else never come
        through.
        """
        return self.held + size <= self.most or self.held <= own

    def take(self, size: int, own: int = 0) -> bool:
        """Whether there was room; it is taken."""
        if not self.has_room(size, own):
            return False
        self.held += size
        return True

    def give_back(self, size: int) -> None:
        self.held -= size
