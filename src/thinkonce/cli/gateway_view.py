"""A running gateway, seen through its admin API."""

from __future__ import annotations

import http.client
import os
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar
from urllib.parse import urlencode, urlsplit

import msgspec

from thinkonce.cli.view import Chosen
from thinkonce.errors import ThinkOnceError
from thinkonce.insight.entries import EntryRow
from thinkonce.settings.check import check_upstream_url

__all__ = ("GatewayError", "GatewayView", "reason_in")

TIMEOUT_SECONDS = 30.0
T = TypeVar("T")


class _Listing(msgspec.Struct):
    entries: list[EntryRow]


class _Purged(msgspec.Struct):
    purged: int


class _Reason(msgspec.Struct):
    message: str


class _Refusal(msgspec.Struct):
    error: _Reason


def reason_in(raw: bytes) -> str:
    """What an error's body says, in OpenAI's shape or in whatever shape it has."""
    try:
        return msgspec.json.decode(raw, type=_Refusal).error.message
    except msgspec.DecodeError:
        return raw[:200].decode(errors="replace") or "no reason given"


class GatewayError(ThinkOnceError):
    """The gateway cannot be reached, or refused."""


class GatewayView:
    """Speaks to `url`, a gateway's address with or without `/v1`. Raises GatewayError."""

    def __init__(self, url: str, token: str = "") -> None:
        check_upstream_url("--url", url)
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self.place = f"{parts.scheme}://{parts.netloc}"
        self._connection = kind(str(parts.hostname), parts.port, timeout=TIMEOUT_SECONDS)
        self._token = token or os.environ.get("THINKONCE_ADMIN_TOKEN", "")

    def stats(self) -> dict[str, Any]:
        return self._ask("GET", "/cache/stats", dict[str, Any])

    def entries(self, chosen: Chosen, limit: int) -> list[EntryRow]:
        query = [("limit", str(limit)), *(("tag", tag) for tag in chosen.tags)]
        for name in ("namespace", "model"):
            if (value := getattr(chosen, name)) is not None:
                query.append((name, value))
        return self._ask("GET", f"/cache/entries?{urlencode(query)}", _Listing).entries

    def show(self, key: str, content: bool) -> dict[str, Any]:
        query = "?content=true" if content else ""
        return self._ask("GET", f"/cache/entries/{key}{query}", dict[str, Any])

    def purge(self, chosen: Chosen) -> int:
        return self._ask("POST", "/cache/purge", _Purged, msgspec.json.encode(chosen)).purged

    def _ask(self, method: str, path: str, kind: type[T], body: bytes | None = None) -> T:
        headers = {"content-type": "application/json"}
        if self._token:
            headers["x-thinkonce-admin-token"] = self._token
        try:
            self._connection.request(method, path, body, headers)
            response = self._connection.getresponse()
            raw = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise GatewayError(f"{self.place} cannot be reached") from error
        if response.status >= 400:
            self._refuse(path, response.status, raw)
        try:
            return msgspec.json.decode(raw, type=kind)
        except msgspec.DecodeError:
            raise GatewayError(
                f"{self.place}{path}: what answers is no thinkonce gateway"
            ) from None

    def _refuse(self, path: str, status: int, raw: bytes) -> NoReturn:
        message = reason_in(raw)
        if status in (401, 403):
            message = f"{message}; set THINKONCE_ADMIN_TOKEN to the gateway's [admin] token"
        raise GatewayError(f"{self.place}{path} answered {status}: {message}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()
