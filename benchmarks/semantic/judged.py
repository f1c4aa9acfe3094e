"""What readers said of pairs of questions, where labels are missing or mistaken (`judged.toml`)."""

from __future__ import annotations

import hashlib
import tomllib
from functools import lru_cache
from pathlib import Path

__all__ = ("judgement", "mark")

FILE = Path(__file__).with_name("judged.toml")


def judgement(one: str, other: str) -> bool | None:
    """Whether one answer serves both; None where nobody has read them. In either order."""
    return _known().get(mark(one, other))


def mark(one: str, other: str) -> str:
    """A name for the pair that does not give its words away."""
    said = "\0".join(sorted((one, other))).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(said, digest_size=8).hexdigest()


@lru_cache(maxsize=1)
def _known() -> dict[str, bool]:
    found = tomllib.loads(FILE.read_text(encoding="utf-8"))
    return {each: said == "same" for said in ("same", "other") for each in found[said]}
