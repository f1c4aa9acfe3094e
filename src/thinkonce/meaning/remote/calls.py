"""POST of JSON to a server that speaks OpenAI's API, over connections that stay open."""

from __future__ import annotations

import http.client
import threading
from urllib.parse import urlsplit

from thinkonce.errors import ConfigError, ThinkOnceError

__all__ = ("CallError", "Calls", "model_of")

MOST_BYTES = 64 * 1024 * 1024  # of an answer
_BROKEN = (OSError, http.client.HTTPException)


class CallError(ThinkOnceError):
    """The server was not reached, or answered with another status than 200."""


def model_of(setting: str, url: str) -> str:
    """What stands behind the `#`. Raises ConfigError for a URL without a host or a model."""
    parts = urlsplit(url)
    if not parts.hostname or not parts.fragment:
        accepts = "a URL with the model behind #, like http://127.0.0.1:11434/v1#bge-m3"
        raise ConfigError(setting, url, accepts)
    return parts.fragment


class Calls:
    """To one server. Thread-safe: each thread has a connection of its own.

    `url`: as an SDK takes it; what is behind `#` is not sent. `timeout` in seconds, for connecting
    and for each read.
    """

    def __init__(self, url: str, api_key: str, timeout: float) -> None:
        parts = urlsplit(url)
        self._timeout = timeout
        self._secure, self._host = parts.scheme == "https", parts.hostname or ""
        self._port, self._base = parts.port, parts.path.rstrip("/")
        self._headers = {"content-type": "application/json", "accept": "application/json"}
        if api_key:
            self._headers["authorization"] = f"Bearer {api_key}"
        self._mine = threading.local()
        self.name = f"{parts.hostname}:{parts.port or ''}{parts.path}#{parts.fragment}"

    def post(self, path: str, body: bytes) -> bytes:
        """The answer's body. Raises CallError."""
        for is_last in (False, True):
            connection = self._connected()
            try:
                connection.request("POST", self._base + path, body, self._headers)
                response = connection.getresponse()
                found = response.read(MOST_BYTES + 1)
            except _BROKEN as error:
                connection.close()
                # A server may close an idle connection at any moment; a new one tells.
                if is_last or isinstance(error, TimeoutError):
                    raise CallError(f"{self.name}: {error or type(error).__name__}") from error
                continue
            if response.status != 200 or len(found) > MOST_BYTES:
                connection.close()
                raise CallError(f"{self.name}: status {response.status}, {len(found)} bytes")
            return found
        raise AssertionError("the loop above returns or raises")

    def close(self) -> None:
        """Closes this thread's connection; those of others go with their threads."""
        connection = getattr(self._mine, "connection", None)
        if connection is not None:
            connection.close()

    def _connected(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._mine, "connection", None)
        if connection is None:
            kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
            connection = kind(self._host, self._port, timeout=self._timeout)
            self._mine.connection = connection
        return connection
