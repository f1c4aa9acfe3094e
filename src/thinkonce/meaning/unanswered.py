"""What is asked again and again and yet goes to the model: questions grouped by likeness.

Groups are kept by the space-saving rule (Metwally, Agrawal and El Abbadi, 2005): when there is no
room, the group with the smallest count gives way, and its count is the newcomer's error.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from thinkonce.host.fork import free_after_fork, on_fork

__all__ = ("Group", "Unanswered")

ALIKE = 0.9  # cosine of a question and a group's first one
MOST_GROUPS = 200  # of a namespace
MOST_NAMESPACES = 64  # clients may name them; who was not heard of for longest is forgotten
MOST_SHOWN = 120  # characters of an example


class Group(msgspec.Struct, frozen=True):
    """`example` was its first question; `count` is too large by `error` at most. `why`: counts."""

    example: str
    count: int
    error: int
    why: dict[str, int]


@dataclass(slots=True)
class _Held:
    example: str
    vector: NDArray[np.float32]
    count: int = 0
    error: int = 0
    why: Counter[str] = field(default_factory=Counter)


class Unanswered:
    """Thread-safe; about ten microseconds a question."""

    def __init__(self) -> None:
        self._groups: OrderedDict[str, list[_Held]] = OrderedDict()
        self._lock = threading.Lock()
        on_fork(self._in_child)

    def note(self, namespace: str, text: str, vector: NDArray[np.float32], why: str) -> None:
        """A question that went to the model. `vector`: (dimensions,), of length 1."""
        with self._lock:
            groups = self._of(namespace)
            group = _nearest(groups, vector)
            if group is None:
                group = _Held(text[:MOST_SHOWN], vector)
                if len(groups) >= MOST_GROUPS:
                    least = min(groups, key=lambda each: each.count)
                    groups.remove(least)
                    group.count = group.error = least.count
                groups.append(group)
            group.count += 1
            group.why[why] += 1

    def top(self, namespace: str, count: int = 10) -> list[Group]:
        """The most asked, at least twice for sure."""
        with self._lock:
            groups = sorted(self._groups.get(namespace, ()), key=lambda each: -each.count)
            return [
                Group(each.example, each.count, each.error, dict(each.why))
                for each in groups[:count]
                if each.count - each.error >= 2
            ]

    def namespaces(self) -> list[str]:
        with self._lock:
            return list(self._groups)

    def _of(self, namespace: str) -> list[_Held]:
        groups = self._groups.setdefault(namespace, [])
        self._groups.move_to_end(namespace)
        if len(self._groups) > MOST_NAMESPACES:
            self._groups.popitem(last=False)
        return groups

    def _in_child(self) -> None:
        free_after_fork(self._lock)


def _nearest(groups: list[_Held], vector: NDArray[np.float32]) -> _Held | None:
    """Those of another embedder, with other dimensions, are not compared."""
    same = [each for each in groups if each.vector.shape == vector.shape]
    if not same:
        return None
    cosines = np.stack([each.vector for each in same]) @ vector
    best = int(cosines.argmax())
    return same[best] if cosines[best] >= ALIKE else None
