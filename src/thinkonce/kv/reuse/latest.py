"""A dict of what is known of each namespace, as many as were used last.

Namespaces are clients' own words, so their number is theirs: what nobody used for longest makes
room, and begins anew should it come back.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar

__all__ = ("MOST", "Latest")

MOST = 4096
"""That are told apart."""

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Latest(OrderedDict[Key, Value]):
    """Least recently used first. One thread writes; `list(latest.values())` is for any."""

    def used(self, key: Key, make: Callable[[], Value]) -> Value:
        """What is there, made where nothing is; it is the latest now."""
        if key not in self:
            self[key] = make()
            if len(self) > MOST:
                self.popitem(last=False)
        self.move_to_end(key)
        return self[key]
