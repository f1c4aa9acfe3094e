"""Stored bytes, cut once where hits differ, and joined anew for each hit.

    {"id":"chatcmpl-1","object":"chat.completion","created":17000,"choices":[...]}
           ^--------------------- run ---------------------^                     ^ annotation

A run goes from the first to the last of the id and the creation time, whichever order they have.
In a stream every event has one, mostly the same, so filling a template is: build each distinct
run once, put the runs between the pieces, join.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

from thinkonce.protocols.splice import Member, members

__all__ = ("Template", "TemplateMaker")

_ANNOTATION = 0  # index of its value; runs follow
_ID, _CREATED = object(), object()
Run = tuple[Any, ...]  # bytes, _ID and _CREATED in order


class Template:
    """Immutable. `size` is the bytes it holds."""

    __slots__ = ("_parts", "_pick", "_runs", "_source", "size")

    def __init__(
        self, parts: list[bytes], values: list[int], runs: list[Run], source: tuple[bytes, bytes]
    ) -> None:
        """`parts` alternate: fixed, gap, fixed, ...; `values[i]` fills the i-th gap."""
        self._parts = parts
        # One gap more than needed, at the end, so that `itemgetter` always gives a tuple.
        self._pick: Callable[[Sequence[bytes]], tuple[bytes, ...]] = itemgetter(*values, -1)
        self._runs = runs
        self._source = source
        self.size = sum(map(len, parts))

    def fill(self, new_id: bytes | None, created: bytes, annotation: bytes) -> bytes:
        """`new_id` is a JSON string with its quotes; None keeps both values as recorded."""
        if new_id is None:
            new_id, created = self._source
        values = [annotation]
        for run in self._runs:
            values.append(
                b"".join([new_id if x is _ID else created if x is _CREATED else x for x in run])
            )
        values.append(b"")
        parts = self._parts.copy()
        parts[1::2] = self._pick(values)
        return b"".join(parts)


class TemplateMaker:
    """Collects the texts of one answer, each a JSON object in its framing."""

    def __init__(self) -> None:
        self._fixed: list[bytes] = [b""]
        self._values: list[int] = []
        self._runs: dict[Run, int] = {}
        self._id = self._created = b""
        self._head = b""  # of the last text: up to the end of its run
        self._head_cut: tuple[int, Run] = (0, ())

    def add(self, text: bytes, before: bytes, after: bytes, *, annotated: bool) -> None:
        """`text` between `before` and `after`; `annotated`: with the gap for the annotation."""
        start, run = self._cut(text)
        end = len(self._head) if run else start
        self._fixed[-1] += before + text[:start]
        if run:
            self._values.append(self._runs.setdefault(run, len(self._runs) + 1))
            self._fixed.append(b"")
        if annotated:
            closing = text.rstrip()[:-1].rstrip()
            self._fixed[-1] += closing[end:]
            self._values.append(_ANNOTATION)
            self._fixed.append(text[len(closing) :] + after)
        else:
            self._fixed[-1] += text[end:] + after

    def add_fixed(self, text: bytes) -> None:
        self._fixed[-1] += text

    def make(self) -> Template:
        parts = [b""] * (2 * len(self._fixed))
        parts[::2] = self._fixed
        return Template(parts, self._values, list(self._runs), (self._id, self._created))

    def _cut(self, text: bytes) -> tuple[int, Run]:
        """Where the run of `text` begins, and the run; () if it has none."""
        head = self._head
        # Nearly always the text begins like the one before it, up to the end of the run.
        if not (head and text.startswith(head) and text[len(head) : len(head) + 1] in (b",", b"}")):
            self._head_cut = self._scan(text)
        return self._head_cut

    def _scan(self, text: bytes) -> tuple[int, Run]:
        wanted = sorted(
            (member for member in members(text) if self._is_ours(member, text)),
            key=lambda member: member.value,
        )
        if not wanted:
            self._head = b""
            return 0, ()
        run: list[Any] = []
        at = start = wanted[0].value
        for member in wanted:
            run += [text[at : member.value], _ID if member.name == "id" else _CREATED]
            at = member.end
        self._head = text[:at]
        return start, tuple(run)

    def _is_ours(self, member: Member, text: bytes) -> bool:
        """Whether it is the id or the time of the answer: a stray other value stays."""
        value = text[member.value : member.end]
        if member.name == "id":
            self._id = self._id or (value if value != b'""' else b"")
            return value == self._id
        if member.name == "created":
            self._created = self._created or (value if value != b"0" else b"")
            return value == self._created
        return False
