"""What `doctor` checks apart from stores and models: the machine, upstreams."""

from __future__ import annotations

import http.client
import platform
import sys
from collections.abc import Iterator, Mapping
from enum import StrEnum
from urllib.parse import urlsplit

import apsw
import msgspec

from thinkonce.settings import Upstream
from thinkonce.version import __version__

__all__ = ("Finding", "Grade", "machine", "upstreams")

REACH_SECONDS = 5.0
# Where a change of the page size, and WAL files shared by processes, are known to work.
OLDEST_SQLITE = (3, 45)


class Grade(StrEnum):
    GOOD = "ok"
    NOTE = "note"  # works, but somebody should know
    BAD = "fail"


class Finding(msgspec.Struct, frozen=True):
    """One line of the report; `todo` says what helps, where something does."""

    name: str
    grade: Grade
    says: str
    todo: str = ""


def machine() -> Iterator[Finding]:
    where = f"{platform.system()} {platform.machine()}"
    yield Finding("thinkonce", Grade.GOOD, f"{__version__}, Python {platform.python_version()}")
    sqlite = apsw.sqlite_lib_version()
    old = tuple(map(int, sqlite.split(".")[:2])) < OLDEST_SQLITE
    yield Finding(
        "sqlite",
        Grade.BAD if old else Grade.GOOD,
        f"{sqlite} on {where}",
        f"{sys.executable} -m pip install --upgrade apsw" if old else "",
    )


def upstreams(pools: Mapping[str, Upstream]) -> Iterator[Finding]:
    """Any HTTP answer counts: without a key a provider says 401, and that is an answer."""
    if not pools:
        yield Finding("upstreams", Grade.NOTE, "none configured", "serve --upstream URL or --local")
    for name, pool in pools.items():
        for url in pool.urls:
            yield _reached(f"upstream {name}", url)


def _reached(name: str, url: str) -> Finding:
    parts = urlsplit(url)
    url = url.replace(parts.netloc, parts.netloc.rpartition("@")[2], 1)  # without a password
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(str(parts.hostname), parts.port, timeout=REACH_SECONDS)
    path = parts.path.rstrip("/").removesuffix("/v1") + "/v1/models"
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        says = f"{url} cannot be reached: {error or type(error).__name__}"
        return Finding(name, Grade.BAD, says, "check the URL, the network and the server there")
    finally:
        connection.close()
    return Finding(name, Grade.GOOD, f"{url} answers ({status})")
