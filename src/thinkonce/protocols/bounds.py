"""What of an upstream's answer can be kept: numbers that end somewhere, texts that are Unicode.

JSON allows `1e400`, forty digits and half a surrogate pair, and some writers add `NaN`. Nothing
here raises: such an answer belongs to whoever asked for it, and is not stored.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ("MOST", "all_keepable", "bounded", "encodable")

MOST = 2**53  # the largest count or time: up to it a double is exact
_NUMBER, _LIST = (int, float), (list, tuple)  # a union would be made at each look
_HELD = 2**64  # beyond, MessagePack has no whole number


def bounded(number: float | None) -> int:
    """`number` as a whole one; 0 where that is no count or time."""
    if number is None or not 0 <= number <= MOST:  # NaN is neither
        return 0
    return int(number)


def encodable(text: str) -> str:
    """`text` with a question mark for each half of a surrogate pair."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def all_keepable(values: Iterable[object]) -> bool:
    """Whether every number and text in these parsed JSON values can be written down again."""
    stack = list(values)
    while stack:
        value = stack.pop()
        if value is None:
            continue
        if isinstance(value, str):
            if not value.isascii() and encodable(value) != value:
                return False
        elif isinstance(value, _NUMBER):
            if not -_HELD < value < _HELD:
                return False
        elif isinstance(value, dict):
            stack += [*value, *value.values()]
        elif isinstance(value, _LIST):
            stack += value
    return True
