"""Stored bytes, marked once where hits differ, and filled anew for each hit.

    {"id":"chatcmpl-1","object":"chat.completion","created":17000,"choices":[...]}
           ^--------------------- run ---------------------^                     ^ annotation

A run goes from the first to the last of the id and the creation time, whichever order they have.
In a stream every event has one, mostly the same: a mark stands for it, a byte that the text has
not, and `bytes.replace` finds all of them in one pass. That is half of what joining the pieces
between them takes: they would be as many objects, and lie all over the memory.
"""

from __future__ import annotations

from collections import Counter
from enum import IntEnum
from secrets import token_bytes
from typing import NamedTuple

from thinkonce.protocols.splice import Member, members

__all__ = ("Template", "TemplateMaker", "template_with_gaps")

# Bytes that an object of bytes takes besides its text, and a list for its place.
PIECE = 41
# UTF-8 has none of these bytes (RFC 3629, 3).
_USUAL_MARKS = (b"\xff", b"\xfe", b"\xfd")
_RANDOM_MARK = 16  # bytes; no answer holds such a one by chance


class Gap(IntEnum):
    """What is put in; its mark is that of the same index."""

    ID = 0
    CREATED = 1
    RUN = 2


Run = tuple[bytes | Gap, ...]  # the id, what lies between, the time; or the other way round; or one
Piece = bytes | Run
_NO_RUN: Run = ()


class Usual(NamedTuple):
    """A body with one kind of run: `last`, behind the annotation, has none.

    first.replace(of_run, run.replace(of_id, new_id).replace(of_created, created))
    """

    of_id: bytes
    of_created: bytes
    of_run: bytes
    run: bytes
    first: bytes
    last: bytes


class Template:
    """Immutable. `size` is the bytes it holds, with the objects around them."""

    __slots__ = ("_is_usual", "_marks", "_run", "_source", "_texts", "size")

    def __init__(self, parts: list[list[Piece]], source: tuple[bytes, bytes]) -> None:
        """The annotation goes between `parts`. `source`: the id and the time as recorded."""
        runs = Counter(piece for part in parts for piece in part if isinstance(piece, tuple))
        usual = max(runs, key=runs.__getitem__, default=_NO_RUN)
        fixed = [each for part in parts for each in _fixed(part)]
        self._marks = _marks_for(b"".join((*fixed, *source)))
        self._run = self._marked(usual)
        self._texts = [
            b"".join(
                piece
                if isinstance(piece, bytes)
                else self._marked((Gap.RUN,) if piece == usual else piece)
                for piece in part
            )
            for part in parts
        ]
        # Two texts with one kind of run, and that in the first alone.
        self._is_usual = len(runs) == 1 and len(parts) == 2 and usual not in parts[1]
        self._source = source
        self.size = sum(map(len, self._texts)) + PIECE * (len(self._texts) + 1)

    def fill(self, new_id: bytes | None, created: bytes, annotation: bytes) -> bytes:
        """`new_id` is a JSON string with its quotes; None keeps both values as recorded."""
        return b"".join(self.pieces(new_id, created, annotation))

    def pieces(
        self, new_id: bytes | None, created: bytes, annotation: bytes
    ) -> tuple[bytes, bytes, bytes]:
        """What `fill` gives, for whoever joins it with more anyway."""
        texts = self._texts
        if not self._run:
            return annotation.join(texts), b"", b""
        if new_id is None:
            new_id, created = self._source
        of_id, of_created, of_run = self._marks
        run = self._run.replace(of_id, new_id).replace(of_created, created)
        filled = [
            text.replace(of_run, run).replace(of_id, new_id).replace(of_created, created)
            for text in texts
        ]
        return annotation.join(filled), b"", b""

    def usual(self) -> Usual | None:
        """What `pieces` does it with where it is simple, for whoever does it at once."""
        if not self._is_usual:
            return None
        return Usual(*self._marks, self._run, *self._texts)

    def _marked(self, run: Run) -> bytes:
        marks = self._marks
        return b"".join(marks[each] if isinstance(each, Gap) else each for each in run)


def _fixed(part: list[Piece]) -> list[bytes]:
    """All that stays, of a part."""
    return [
        each
        for piece in part
        for each in ((piece,) if isinstance(piece, bytes) else piece)
        if isinstance(each, bytes)
    ]


def _marks_for(text: bytes) -> tuple[bytes, bytes, bytes]:
    """Three of the same length that do not occur in `text`."""
    marks = _USUAL_MARKS
    while any(mark in text for mark in marks):  # it is no UTF-8
        marks = (token_bytes(_RANDOM_MARK), token_bytes(_RANDOM_MARK), token_bytes(_RANDOM_MARK))
    return marks


def template_with_gaps(pieces: list[bytes]) -> Template:
    """The annotation, and nothing else, goes between `pieces`: id and time stay as recorded."""
    return Template([[piece] for piece in pieces], (b"", b""))


class Cut(NamedTuple):
    """Where the run of a text is: `[start, end)`."""

    start: int
    end: int
    run: Run


_NO_CUT = Cut(0, 0, _NO_RUN)


def _cut_of(ours: list[Member], text: bytes) -> Cut:
    first, last = ours[0], ours[-1]
    gaps = [Gap.ID if member.name == "id" else Gap.CREATED for member in ours]
    run: Run = (gaps[0],) if len(ours) == 1 else (gaps[0], text[first.end : last.value], gaps[1])
    return Cut(first.value, last.end, run)


class TemplateMaker:
    """Collects the texts of one answer, each a JSON object in its framing."""

    def __init__(self) -> None:
        self._parts: list[list[Piece]] = [[]]
        self._id = self._created = b""
        self._head = b""  # of the last text with both: up to the end of its run
        self._usual = _NO_CUT

    def add(self, text: bytes, before: bytes, after: bytes, *, annotated: bool) -> None:
        """`text` between `before` and `after`; `annotated`: with the gap for the annotation."""
        start, end, run = self._cut(text)
        self._parts[-1] += (before, text[:start], run)
        if annotated:
            closing = text.rstrip()[:-1].rstrip()
            self._parts[-1].append(closing[end:])
            self._parts.append([text[len(closing) :] + after])
        else:
            self._parts[-1] += (text[end:], after)

    def add_fixed(self, text: bytes) -> None:
        self._parts[-1].append(text)

    def make(self) -> Template:
        parts = [[piece for piece in part if piece] for part in self._parts]
        return Template(parts, (self._id, self._created))

    def _cut(self, text: bytes) -> Cut:
        end = self._usual.end
        # Nearly always the text begins like an earlier one, up to the end of the run.
        if end and text.startswith(self._head) and text[end : end + 1] in (b",", b"}"):
            return self._usual
        ours = [m for m in members(text, ("id", "created")) if self._is_ours(m, text)]
        if not ours or len(ours) > 2:
            return _NO_CUT
        cut = _cut_of(ours, text)
        if len(ours) == 2:
            self._usual, self._head = cut, text[: cut.end]
        return cut

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
