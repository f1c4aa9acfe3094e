"""How many requests a server gets at a time, or a client may have under way."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

__all__ = ("CLIENTS", "Room", "Rooms")

CLIENTS = "[clients]"


class Room:
    """`busy` of `most` places are taken. Belongs to one event loop.

    `is_shared`: others take and give back places too, and tell nobody.
    """

    is_shared = False

    def __init__(self, most: float = inf) -> None:
        self.most, self._busy = most, 0

    @property
    def busy(self) -> int:
        """Places taken here."""
        return self._busy

    def has_one(self) -> bool:
        """Whether `take` would get a place."""
        return self._busy < self.most

    def take(self) -> bool:
        """Whether there was a place; it is taken."""
        if self._busy >= self.most:
            return False
        self._busy += 1
        return True

    def give_back(self) -> None:
        self._busy -= 1


# The room of a pool's server: the pool's name, the server's URL, the most requests. A client's:
# CLIENTS, the client's name and key's digest, the most requests.
Rooms = Callable[[str, str, int], Room]
