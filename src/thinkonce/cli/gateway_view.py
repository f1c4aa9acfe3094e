"""A running gateway, seen through its admin API."""

from __future__ import annotations

import http.client
import os
from collections.abc import Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar
from urllib.parse import urlencode, urlsplit

import msgspec

from thinkonce.cli.interrupts import heeded
from thinkonce.cli.options import GATEWAY
from thinkonce.cli.view import Chosen, Purged
from thinkonce.cli.whose import WHOSE
from thinkonce.errors import MISSING, ConfigError, ThinkOnceError
from thinkonce.insight.entries import EntryRow
from thinkonce.insight.explained import Explained
from thinkonce.settings.check import check_upstream_url

__all__ = ("UNREACHED", "GatewayError", "GatewayView", "reason_in")

UNREACHED = "{} cannot be reached (does `thinkonce {}` run there?)"
TIMEOUT_SECONDS = 30.0
PATIENCE_SECONDS = 3600.0
LINES = {"content-type": "application/jsonl"}
T = TypeVar("T")


class _Listing(msgspec.Struct):
    entries: list[EntryRow]


class _Reset(msgspec.Struct):
    reset: int


class _Reason(msgspec.Struct):
    message: str
    code: str | None = None


class _Refusal(msgspec.Struct):
    error: _Reason


def reason_in(raw: bytes) -> str:
    """What an error's body says, in OpenAI's shape or in whatever shape it has."""
    try:
        return msgspec.json.decode(raw, type=_Refusal).error.message
    except msgspec.DecodeError:
        return raw[:200].decode(errors="replace") or "no reason given"


def code_in(raw: bytes) -> str:
    """The word for programs in an error's body; "" for none."""
    try:
        return msgspec.json.decode(raw, type=_Refusal).error.code or ""
    except msgspec.DecodeError:
        return ""


class GatewayError(ThinkOnceError):
    """The gateway cannot be reached, or refused."""


class GatewayView:
    """Speaks to `url`, a gateway's address with or without `/v1`. Raises GatewayError."""

    server, command, whose = "gateway", "serve", WHOSE
    elsewhere = ""  # where else it may listen, for who does not find it

    def __init__(self, url: str, token: str = "") -> None:
        check_upstream_url("--url", url)
        parts = urlsplit(url)
        if parts.path.rstrip("/").removesuffix("/v1"):
            accepts = f"a {self.server}'s address, with /v1 or without, such as {GATEWAY}"
            raise ConfigError("--url", url, accepts)
        secure = parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self.place = f"{parts.scheme}://{parts.netloc}"
        self._connection = kind(str(parts.hostname), parts.port, timeout=TIMEOUT_SECONDS)
        self._heeded = ExitStack()
        self._token = token or os.environ.get("THINKONCE_ADMIN_TOKEN", "")

    def stats(self) -> dict[str, Any]:
        return self.ask("GET", "/cache/stats?apart=true", dict[str, Any])

    def entries(self, chosen: Chosen, limit: int) -> list[EntryRow]:
        query = [("limit", str(limit)), *(("tag", tag) for tag in chosen.tags)]
        for name in ("namespace", "model"):
            if (value := getattr(chosen, name)) is not None:
                query.append((name, value))
        return self.ask("GET", f"/cache/entries?{urlencode(query)}", _Listing).entries

    def show(self, key: str, content: bool) -> dict[str, Any]:
        query = "?content=true" if content else ""
        return self.ask("GET", f"/cache/entries/{key}{query}", dict[str, Any])

    def explain(self, raw: bytes, endpoint: str, headers: dict[str, str]) -> Explained:
        """`headers`: the client's."""
        query = f"?{urlencode({'endpoint': endpoint})}" if endpoint else ""
        return self.ask("POST", f"/cache/explain{query}", Explained, raw, **headers)

    def purge(self, chosen: Chosen) -> Purged:
        return self.ask("POST", "/cache/purge", Purged, msgspec.json.encode(chosen))

    def reset_audits(self, namespace: str | None, tenant: str | None) -> int:
        wanted = {"namespace": namespace, "tenant": tenant, "all": namespace is tenant is None}
        return self.ask("POST", "/cache/audits/reset", _Reset, msgspec.json.encode(wanted)).reset

    def lines(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> Iterator[bytes]:
        """An answer line by line, as it comes; who stops early ends the connection.

        Raises GatewayError, also for an answer that stops before its end.
        """
        # A line may take as long as a model does.
        self._connection.timeout = PATIENCE_SECONDS
        response = self._begin(method, path, body, LINES | headers)
        if response.status >= 400:
            self._refuse(path, response.status, response.read())
        try:
            yield from response
        except (OSError, http.client.HTTPException) as error:
            raise GatewayError(f"{self.place} broke off its answer") from error
        finally:
            if not response.isclosed():
                self._connection.close()

    def _begin(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> http.client.HTTPResponse:
        if self._token:
            headers = {**headers, "x-thinkonce-admin-token": self._token}
        try:
            self._connection.request(method, path, body, headers)
            return self._connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise self._unreached() from error

    def _unreached(self) -> GatewayError:
        return GatewayError(UNREACHED.format(self.place, self.command) + self.elsewhere)

    def ask(
        self, method: str, path: str, kind: type[T], body: bytes | None = None, **more: str
    ) -> T:
        """One answer, read as `kind`. Raises GatewayError."""
        response = self._begin(method, path, body, {"content-type": "application/json"} | more)
        try:
            raw = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._unreached() from error
        if response.status >= 400:
            self._refuse(path, response.status, raw)
        try:
            return msgspec.json.decode(raw, type=kind)
        except msgspec.DecodeError:
            raise GatewayError(
                f"{self.place}{path}: what answers is no thinkonce {self.server}"
            ) from None

    def _refuse(self, path: str, status: int, raw: bytes) -> NoReturn:
        message, code = reason_in(raw), code_in(raw)
        if code in ("tenant_needed", "foreign_secret"):
            why = message if code == "foreign_secret" else "there is not exactly one tenant here"
            raise ConfigError("the tenant of the entries", MISSING, f"{self.whose} ({why})")
        if status in (401, 403):
            message = f"{message}; set THINKONCE_ADMIN_TOKEN to the {self.server}'s [admin] token"
        raise GatewayError(f"{self.place}{path} answered {status}: {message}")

    def __enter__(self) -> Self:
        self._heeded.enter_context(heeded())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()
        self._heeded.close()
