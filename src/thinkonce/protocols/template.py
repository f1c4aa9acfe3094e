"""Stored bytes, cut once where hits differ, and joined anew for each hit.

    {"id":"chatcmpl-1","object":"chat.completion","created":17000,"choices":[...]}
           ^--------------------- run ---------------------^                     ^ annotation

A run goes from the first to the last of the id and the creation time, whichever order they have.
In a stream every event has one, mostly the same: each distinct run is built once a hit.
"""

from __future__ import annotations

from typing import NamedTuple

from thinkonce.protocols.splice import Member, members

__all__ = ("Template", "TemplateMaker", "template_with_gaps")

# Bytes that an object of bytes takes besides its text, and a list for its place.
PIECE = 41
_ANNOTATION = 0  # index of its value; runs follow


class Run(NamedTuple):
    """The id, what lies between, the creation time; or the other way round; or one of them."""

    has_id: bool
    between: bytes
    has_created: bool
    id_first: bool

    def fill(self, new_id: bytes, created: bytes) -> bytes:
        first = new_id if self.has_id else b""
        last = created if self.has_created else b""
        if self.id_first:
            return b"".join((first, self.between, last))
        return b"".join((last, self.between, first))


class Template:
    """Immutable. `size` is the bytes it holds, with the objects around them."""

    __slots__ = ("_runs", "_segments", "_source", "size")

    def __init__(
        self, fixed: list[bytes], values: list[int], runs: list[Run], source: tuple[bytes, bytes]
    ) -> None:
        """`values[i]` goes between `fixed[i]` and `fixed[i + 1]`."""
        self._segments = _segments(fixed, values)
        self._runs = runs
        self._source = source
        self.size = sum(map(len, fixed)) + PIECE * len(fixed)

    def fill(self, new_id: bytes | None, created: bytes, annotation: bytes) -> bytes:
        """`new_id` is a JSON string with its quotes; None keeps both values as recorded."""
        if new_id is None:
            new_id, created = self._source
        values = [annotation, *[run.fill(new_id, created) for run in self._runs]]
        return b"".join([values[value].join(pieces) for value, pieces in self._segments])


def _segments(fixed: list[bytes], values: list[int]) -> list[tuple[int, list[bytes]]]:
    """Pieces between which the same value goes, together: `bytes.join` then does the work.

    fixed 0 1 2 3 4, values r r A r  ->  r: 0 1 2, A: "" 3, r: "" 4
    """
    segments: list[tuple[int, list[bytes]]] = [(_ANNOTATION, [fixed[0]])]
    for value, piece in zip(values, fixed[1:], strict=True):
        if segments[-1][0] != value:
            segments.append((value, [b""]))
        segments[-1][1].append(piece)
    return segments


def template_with_gaps(pieces: list[bytes]) -> Template:
    """The annotation, and nothing else, goes between `pieces`: id and time stay as recorded."""
    return Template(pieces, [_ANNOTATION] * (len(pieces) - 1), [], (b"", b""))


class Cut(NamedTuple):
    """Where the run of a text is: `[start, end)`."""

    start: int
    end: int
    run: Run | None


_NO_CUT = Cut(0, 0, None)


def _cut_of(ours: list[Member], text: bytes) -> Cut:
    first, last = ours[0], ours[-1]
    names = {member.name for member in ours}
    between = text[first.end : last.value] if len(ours) == 2 else b""
    run = Run("id" in names, between, "created" in names, id_first=first.name == "id")
    return Cut(first.value, last.end, run)


class TemplateMaker:
    """Collects the texts of one answer, each a JSON object in its framing."""

    def __init__(self) -> None:
        self._fixed: list[bytes] = [b""]
        self._values: list[int] = []
        self._runs: dict[Run, int] = {}
        self._id = self._created = b""
        self._head = b""  # of the last text with both: up to the end of its run
        self._usual = _NO_CUT

    def add(self, text: bytes, before: bytes, after: bytes, *, annotated: bool) -> None:
        """`text` between `before` and `after`; `annotated`: with the gap for the annotation."""
        start, end, run = self._cut(text)
        self._fixed[-1] += before + text[:start]
        if run is not None:
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
        return Template(self._fixed, self._values, list(self._runs), (self._id, self._created))

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
