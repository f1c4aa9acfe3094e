"""Any server that speaks OpenAI's `POST /embeddings`: a provider, vLLM, TEI, llama.cpp, Ollama."""

from __future__ import annotations

import base64
import http.client
import threading
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec
import numpy as np

from thinkonce.errors import ConfigError
from thinkonce.meaning.embedder import EmbedderError, Vectors, embeddable, unit_rows

__all__ = ("embedder",)

MOST_BYTES = 64 * 1024 * 1024  # of an answer
_BROKEN = (OSError, http.client.HTTPException)


def embedder(url: str, api_key: str = "", timeout: float = 10.0) -> Api:
    """`url`: as its SDK takes it, and the model behind `#`. Asks for one vector to learn its size.

    Raises ConfigError for a URL without a model, EmbedderError where the server does not answer.
    """
    parts = urlsplit(url)
    if not parts.hostname or not parts.fragment:
        accepts = "a URL with the model behind #, like http://127.0.0.1:11434/v1#bge-m3"
        raise ConfigError("semantic.embedder", url, accepts)
    return Api(parts.geturl(), api_key, timeout)


class _Item(msgspec.Struct):
    embedding: list[float] | str
    index: int | None = None


class _Answer(msgspec.Struct):
    data: list[_Item]


_decode = msgspec.json.Decoder(_Answer).decode


class Api:
    """An `Embedder`. Each thread has a connection of its own, which stays open."""

    concurrency = 4

    def __init__(self, url: str, api_key: str, timeout: float) -> None:
        parts = urlsplit(url)
        self._model, self._timeout = parts.fragment, timeout
        self._secure, self._host = parts.scheme == "https", parts.hostname or ""
        self._port, self._path = parts.port, parts.path.rstrip("/") + "/embeddings"
        self._headers = {"content-type": "application/json", "accept": "application/json"}
        if api_key:
            self._headers["authorization"] = f"Bearer {api_key}"
        self._mine = threading.local()
        self.name = f"api-{parts.hostname}:{parts.port or ''}{parts.path}#{self._model}"
        self.dimensions = 0
        self.dimensions = int(self.embed(["a"]).shape[1])

    def embed(self, texts: Sequence[str]) -> Vectors:
        clean = [embeddable(text) for text in texts]
        asked = {"model": self._model, "input": clean, "encoding_format": "float"}
        try:
            rows = _in_order(_decode(self._send(msgspec.json.encode(asked))).data)
        except ValueError as error:  # not JSON, not base64, or a text that is no Unicode
            raise EmbedderError(f"{self.name}: {error}") from error
        return unit_rows(rows, len(texts), self.dimensions)

    def close(self) -> None:
        """Closes this thread's connection; those of others go with their threads."""
        connection = getattr(self._mine, "connection", None)
        if connection is not None:
            connection.close()

    def _send(self, body: bytes) -> bytes:
        for is_last in (False, True):
            connection = self._connected()
            try:
                connection.request("POST", self._path, body, self._headers)
                response = connection.getresponse()
                found = response.read(MOST_BYTES + 1)
            except _BROKEN as error:
                connection.close()
                # A server may close an idle connection at any moment; a new one tells.
                if is_last or isinstance(error, TimeoutError):
                    raise EmbedderError(f"{self.name}: {error or type(error).__name__}") from error
                continue
            if response.status != 200 or len(found) > MOST_BYTES:
                connection.close()
                raise EmbedderError(f"{self.name}: status {response.status}, {len(found)} bytes")
            return found
        raise AssertionError("the loop above returns or raises")

    def _connected(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._mine, "connection", None)
        if connection is None:
            kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
            connection = kind(self._host, self._port, timeout=self._timeout)
            self._mine.connection = connection
        return connection


def _in_order(items: list[_Item]) -> list[Any]:
    """By their numbers, where they have some: nothing says that they come in order."""
    if all(item.index is not None for item in items):
        items = sorted(items, key=lambda item: item.index or 0)
    return [_numbers(item.embedding) for item in items]


def _numbers(embedding: list[float] | str) -> Any:
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding), dtype="<f4")
    return embedding
