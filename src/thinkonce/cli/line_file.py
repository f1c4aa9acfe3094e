"""A file of lines read in pieces, so that its length does not matter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from thinkonce.errors import ConfigError

__all__ = ("Piece", "count_lines", "pieces")

# (the first line's number, from 1; lines with their newlines)
Piece = tuple[int, list[bytes]]


def count_lines(file: Path, option: str = "FILE") -> int:
    """Raises ConfigError naming the file."""
    try:
        with file.open("rb") as opened:
            return sum(1 for _ in opened)
    except OSError as error:
        raise ConfigError(option, str(file), f"a readable file ({error.strerror})") from None


def pieces(file: Path, most_lines: int, most_bytes: int) -> Iterator[Piece]:
    """At least one line each, whatever its length."""
    first, lines, size = 1, list[bytes](), 0
    with file.open("rb") as opened:
        for number, line in enumerate(opened, start=1):
            if lines and (len(lines) >= most_lines or size + len(line) > most_bytes):
                yield first, lines
                first, lines, size = number, [], 0
            lines.append(line)
            size += len(line)
    if lines:
        yield first, lines
