"""A call's own copy of its arguments, for work that goes on after its caller has gone on.

A list that a caller goes on filling says something else by the time a renewal reads it. So what
can change is rebuilt from its bytes where that is exact, else deep-copied. What has no canonical
form (a client, a model) is never copied: two of them might not be what one was.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from copy import deepcopy
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, ClassVar
from uuid import UUID

from thinkonce.request.arguments import Serial, canonical_args
from thinkonce.values import encode, thaw

__all__ = ("Alone", "Values", "copied", "may_change")

Values = tuple[Any, ...]

_FIXED = frozenset(
    {str, int, float, complex, bool, bytes, type(None), type(...), range}
    | {Decimal, Fraction, UUID, date, datetime, time, timedelta}
)
_HOLDERS = frozenset({tuple, frozenset})


@dataclass(frozen=True, slots=True)
class Alone:
    """A stream that one caller reads and nobody keeps: no other may have asked for it."""

    read: Callable[[], Any]
    has_joined: ClassVar[bool] = False


def may_change(values: Values, places: Collection[int]) -> bool:
    """Whether one of `values` at `places` could be another by now."""
    return not all(_is_fixed(values[place]) for place in places)


def copied(values: Values, places: Collection[int], serial: Serial | None) -> tuple[Values, bool]:
    """`values` with those at `places` that can change copied, and whether all of them could be.

    The very tuple where nothing had to be copied. `serial` is for `canonical_args`. Whoever uses
    the copies makes the key of them first: the original may have changed meanwhile.
    """
    own, complete = list(values), True
    for place in places:
        value = values[place]
        if _is_fixed(value):
            continue
        try:
            own[place] = _copy(value, serial)
        except Exception:  # `__deepcopy__`, constructors and properties are the user's code
            complete = False
    changed = any(one is not other for one, other in zip(own, values, strict=True))
    return (tuple(own) if changed else values), complete


def _is_fixed(value: Any) -> bool:
    kind = type(value)
    return kind in _FIXED or (kind in _HOLDERS and all(map(_is_fixed, value)))


def _copy(value: Any, serial: Serial | None) -> Any:
    """Raises whatever stands in the way."""
    try:
        return thaw(encode(value))
    except Exception:  # no bytes, or none that its class can be made of
        canonical_args(("",), (value,), serial)  # a TypeError for what has no form
        return deepcopy(value)
