"""One canonical form for requests and for plain Python calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from thinkonce.errors import RequestError

__all__ = ("MalformedBody", "Parsed", "canonical", "canonical_args", "parse_body")


class MalformedBody(RequestError):
    """The body is not JSON. `line` and `column` (both from 1) say where."""

    def __init__(self, problem: str, line: int, column: int) -> None:
        super().__init__(
            "body", f"{problem} at line {line} column {column}", "a JSON object in UTF-8"
        )
        self.problem, self.line, self.column = problem, line, column


class Parsed(msgspec.Struct, frozen=True, gc=False):
    """A body, and why it has no canonical form ("" when it has one).

    An unkeyable body is forwarded as it came and never cached (`Reason.UNKEYABLE`). `body` is
    then what could be read of it, good for `model`, `stream` and controls only.
    """

    body: dict[str, Any]
    unkeyable: str = ""


def parse_body(raw: bytes) -> Parsed:
    """Raises MalformedBody for what is not JSON, RequestError for JSON that is no object."""
    raise NotImplementedError


def canonical(value: Any) -> bytes:
    """Bytes that are equal exactly when two parsed bodies mean the same request."""
    raise NotImplementedError


def canonical_args(names: Sequence[str], values: Sequence[Any]) -> bytes:
    """Bytes for bound arguments, in the order of the parameters; every type is told apart.

    Raises TypeError that names the argument and `key=` / `ignore=`.
    """
    raise NotImplementedError
