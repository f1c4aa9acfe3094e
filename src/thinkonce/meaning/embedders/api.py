"""Any server that speaks OpenAI's `POST /embeddings`: a provider, vLLM, TEI, llama.cpp, Ollama."""

from __future__ import annotations

import base64
import logging
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from thinkonce.meaning.embedders.embedder import EmbedderError, Vectors, embeddable, unit_rows
from thinkonce.meaning.remote.calls import CallError, Calls, model_of

__all__ = ("embedder",)

log = logging.getLogger("thinkonce.semantic")


def embedder(url: str, api_key: str = "", timeout: float = 10.0) -> Api:
    """`url`: as its SDK takes it, and the model behind `#`. Asks for one vector to learn its size;
    where the server does not answer, that is learned from the first vector it gives later.

    Raises ConfigError for a URL without a model.
    """
    model = model_of("semantic.embedder", url)
    try:
        return Api(Calls(url, api_key, timeout), model)
    except EmbedderError as error:
        raise EmbedderError("[semantic] embedder gave no vector at the start") from error


class _Item(msgspec.Struct):
    embedding: list[float] | str
    index: int | None = None


class _Answer(msgspec.Struct):
    data: list[_Item]


_decode = msgspec.json.Decoder(_Answer).decode


class Api:
    """An `Embedder`. `dimensions` is 0 until the server has given its first vector."""

    family = ""
    concurrency = 4

    def __init__(self, calls: Calls, model: str) -> None:
        self._calls, self._model = calls, model
        self.name = f"api-{calls.name}"
        self.dimensions = 0
        try:
            self.embed(["a"])
        except EmbedderError as error:
            log.warning("semantic.embedder gives no vectors yet, questions are misses: %s", error)

    def embed(self, texts: Sequence[str]) -> Vectors:
        clean = [embeddable(text) for text in texts]
        asked = {"model": self._model, "input": clean, "encoding_format": "float"}
        try:
            found = self._calls.post("/embeddings", msgspec.json.encode(asked))
            rows = _in_order(_decode(found).data)
        except (CallError, ValueError) as error:  # not JSON, not base64, or a text of no Unicode
            raise EmbedderError(f"{self.name}: {error}") from error
        units = unit_rows(rows, len(texts), self.dimensions)
        self.dimensions = units.shape[1]
        return units

    def close(self) -> None:
        self._calls.close()


def _in_order(items: list[_Item]) -> list[Any]:
    """By their numbers, where they have some: nothing says that they come in order."""
    if all(item.index is not None for item in items):
        items = sorted(items, key=lambda item: item.index or 0)
    return [_numbers(item.embedding) for item in items]


def _numbers(embedding: list[float] | str) -> Any:
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding), dtype="<f4")
    return embedding
