"""Whole requests as bytes, made of odd parts by chance: none is answered by a failure of ours.

The chance is seeded: the same requests every time.
"""

from __future__ import annotations

import json
import re
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import pytest

from gateway.served import provider, served
from thinkonce.gateway.description import document_of
from thinkonce.request.controls import FIELDS
from thinkonce.settings import Settings

pytestmark = pytest.mark.xdist_group("fuzz-raw")

SECONDS = 10
FEW, MANY = 400, 20_000
PATHS = (
    *document_of(Settings())["paths"],
    "/cache/entries/" + "a" * 64,
    "/cache/entries/abcdefab/feedback",
    "/v1/files", "/v1//chat/completions", "/%2e%2e/", "/v1/models/%", "/v1/%00", "/\xff", "*",
    "http://x/y",
)  # fmt: skip
QUERIES = (
    "limit=0", "limit=x", "after=zz", "after=ab", "tag=a&tag=b", "content=true", "endpoint=x",
    "endpoint=chat/completions", "concurrency=0", "rate=nan", "rate=1000", "into_tenant=x", "%",
    "a=\xff", "a=%ff&limit=%00", "&&&==", "tenant=zz", "",
)  # fmt: skip
METHODS = (
    *["POST"] * 8,
    *["GET"] * 4,
    "DELETE",
    "PUT",
    "HEAD",
    "OPTIONS",
    "PATCH",
    "TRACE",
    "BREW",
)
HEADERS = (
    *(f"x-thinkonce-{name.replace('_', '-')}" for name in FIELDS),
    "x-thinkonce-tenant", "x-thinkonce-group", "x-thinkonce-client-authorization",
    "x-thinkonce-admin-token", "x-thinkonce-nobody", "cache-control", "content-type",
    "content-encoding", "authorization", "x-api-key", "openai-organization", "anthropic-beta",
    "x-request-id", "origin", "host", "accept", "range", "te", "traceparent", "x-forwarded-for",
    "accept-encoding", "via", "cookie", "upgrade", "connection", "accept-language",
)  # fmt: skip
VALUES = (
    "", "0", "-1", "1", "1e400", "nan", "inf", "9" * 30, "true", "false", "hot", "pinned", "exact",
    "gzip", "identity", "application/json", "text/plain", "application/jsonl", "a,b,,c", ",",
    "x" * 2000, "é", "\xff\xfe", "\x01", '"', "max-age=5", "max-age=-1", "no-cache, no-store",
    "only-if-cached", "max-stale=x", "stale-if-error=99999999999999999999", "bytes=0-1",
    "keep-alive", "close", "websocket", "anonymous", "localhost", "override", "1.5s", "1" * 5000,
)  # fmt: skip
NAMES = (
    "model", "messages", "role", "content", "stream", "stream_options", "tools", "type", "text",
    "function", "image_url", "url", "input", "prompt", "temperature", "kv_cache", "cache", "n",
    "system", "source", "id", "previous_response_id", "metadata", "encoding_format", "dimensions",
    "all", "key", "older_than", "max_bytes", "store_max_bytes", "wrong", "method", "body",
    "custom_id", "response_format", "items", "thinking", "output", "reasoning", *FIELDS,
)  # fmt: skip
TEXTS = ("", "x", "user", "assistant", "é", "\ud800", "a" * 300, "stop", "data:image/png;base64,AA")
NUMBERS = (0, 1, -1, 2**63, 2**64, 10**30, 1.5, 1e308, -0.0, None, True, False)
BODIES = (
    b"", b"{", b"[]", b"null", b'"x"', b'{"model":1}', b"\xef\xbb\xbf{}", b"[" * 5000, b"\x00",
    b'{"a":' * 3000, b'{"model":"m","model":"n"}', b"\x1f\x8b\x08junk", b"\xf1\xf2",
)  # fmt: skip


# A gateway that knows its clients, has two pools with keys of its own, pages of another site, an
# encrypted store and a token: what it reads of a request, it reads of odd ones too.
GUARDED = """
[gateway]
cors_origins = ["https://a.example"]
[cache]
samples = 2
stale_if_error = 60
[upstreams.one]
urls = ["{upstream}"]
models = ["m"]
api_key_env = "OWN_KEY"
fallback = ["two"]
[upstreams.two]
urls = ["{upstream}"]
models = ["*"]
[clients.alice]
key_sha256 = "{alice}"
models = ["m", "x*"]
max_bytes = "100KiB"
[clients.bob]
key_sha256 = "{bob}"
"""
TOKEN = "a long enough token"
KNOWN = (
    "authorization: Bearer sk-alice", "authorization: Bearer sk-bob", "x-api-key: sk-alice",
    f"x-thinkonce-admin-token: {TOKEN}", "origin: https://a.example", "origin: https://b.example",
    "access-control-request-method: POST",
)  # fmt: skip


class Chance:
    """Makes requests; `known` lines of heads are in many of them."""

    def __init__(self, seed: int, known: Sequence[str]) -> None:
        self.random, self._known = Random(seed), known

    def value(self, depth: int = 0) -> Any:
        kind = self.random.randrange(4 if depth < 4 else 2)
        if kind < 2:
            return self.random.choice(NUMBERS if kind else TEXTS)
        some = range(self.random.randrange(5))
        if kind == 2:
            return [self.value(depth + 1) for _ in some]
        return {self.random.choice(NAMES): self.value(depth + 1) for _ in some}

    def body(self) -> bytes:
        random = self.random
        if random.random() < 0.2:
            return random.choice(BODIES)
        asked = {"model": "m", "messages": [{"role": "user", "content": self.value(2)}]}
        line = {"custom_id": "1", "method": "POST", "url": random.choice(PATHS), "body": asked}
        told = random.choice([asked, line, {"model": "m", "input": self.value()}, self.value()])
        if isinstance(told, dict):
            told |= {random.choice(NAMES): self.value() for _ in range(random.randrange(4))}
        text = json.dumps(told, ensure_ascii=random.random() < 0.7)
        raw = text.encode("utf-8", "surrogatepass")
        return raw[: random.randrange(len(raw) + 1)] if random.random() < 0.1 else raw

    def request(self) -> bytes:
        random, body = self.random, self.body()
        path = random.choice(PATHS)
        if random.random() < 0.3:
            path += "?" + random.choice(QUERIES)
        lines = [f"{random.choice(METHODS)} {path} HTTP/1.{random.choice('01111')}"]
        lines += ["host: 127.0.0.1:1"] * (random.random() < 0.85)
        lines += [line for line in self._known if random.random() < 0.5]
        lines += ["content-type: application/json"] * (random.random() < 0.8)
        for _ in range(random.randrange(4)):
            lines.append(f"{random.choice(HEADERS)}: {random.choice(VALUES)}")
        if random.random() < 0.15:
            lines.append("transfer-encoding: chunked")
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
        else:
            lines.append(f"content-length: {len(body)}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + body


@dataclass(frozen=True)
class Target:
    """A gateway's port, where it logs, and what its known callers send."""

    port: int
    log: Path
    known: tuple[str, ...] = ()


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("raw")
    store = f"sqlite:///{folder / 'answers.db'}"
    with (
        provider() as upstream,
        served(folder, "--upstream", upstream, "--store", store) as url,
    ):
        yield Target(urlsplit(url).port or 0, folder / "log")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("guarded")
    digests = {name: sha256(f"sk-{name}".encode()).hexdigest() for name in ("alice", "bob")}
    secrets = {
        "OWN_KEY": "sk-own",
        "THINKONCE_ADMIN_TOKEN": TOKEN,
        "THINKONCE_STORE_ENCRYPTION_KEY": "0f" * 32,
        "THINKONCE_STORE_URL": f"sqlite:///{folder / 'answers.db'}",
    }
    with provider() as upstream:
        text = GUARDED.format(upstream=upstream, **digests)
        (folder / "thinkonce.toml").write_text(text, encoding="utf-8")
        with served(folder, **secrets) as url:
            yield Target(urlsplit(url).port or 0, folder / "log", KNOWN)


def answered(port: int, request: bytes) -> tuple[int, bytes]:
    """The status of the last answer, and all that came; 0 where the connection was just closed."""
    with socket.create_connection(("127.0.0.1", port), SECONDS) as connection:
        connection.sendall(request)
        got = b""
        while not _whole(got, request) and (piece := connection.recv(65536)):
            got += piece
    statuses = re.findall(rb"^HTTP/1\.1 (\d{3})", got, re.M)
    return int(statuses[-1]) if statuses else 0, got


def _whole(got: bytes, request: bytes) -> bool:
    head, end, body = got.partition(b"\r\n\r\n")
    length = re.search(rb"^content-length: (\d+)", head, re.M | re.I)
    if not end:
        return False
    if request.startswith(b"HEAD ") or head.split(b" ")[1] in (b"204", b"304"):
        return True
    return len(body) >= int(length[1]) if length else body.endswith(b"0\r\n\r\n")


def bombard(target: Target, seed: int, times: int) -> None:
    chance, seen = Chance(seed, target.known), Counter[int]()
    for _ in range(times):
        request = chance.request()
        status, got = answered(target.port, request)
        seen[status] += 1
        meant = status == 501 or (status == 504 and b"not_cached" in got)
        assert status < 500 or meant, f"{request!r:.2000}\n{got!r:.2000}"
        assert status, f"no answer to {request!r:.2000}"
    assert {200, 400, 403, 404} <= seen.keys(), f"too narrow a range of requests: {seen}"
    assert "Traceback" not in target.log.read_text(encoding="utf-8")


def test_odd_requests_are_answered_and_none_is_a_failure_of_ours(opened: Target) -> None:
    bombard(opened, 1, FEW)


def test_odd_requests_of_known_clients_are_answered_too(guarded: Target) -> None:
    bombard(guarded, 3, FEW)


@pytest.mark.slow
def test_very_many_odd_requests_are_answered_too(opened: Target, guarded: Target) -> None:
    bombard(opened, 2, MANY)
    bombard(guarded, 4, MANY)
