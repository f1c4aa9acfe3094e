"""Nothing of one tenant's prompts is found by another, whatever it says of itself.

Each look-up is a request over a socket for the very tokens that the victim asked for, by somebody
new: with parts of the victim's credentials and names, in other places and spellings.
"""

from __future__ import annotations

import http.client
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from small_model import Serve, Served

from thinkonce.settings import Kv

CHUNK = 64
PROMPT = [5 + place % 300 for place in range(2 * CHUNK + 1)]
SECRET = "s" * 32
KEY, OTHER_KEY = "sk-victim", "sk-other"
NAMES = {"namespace": "drafts", "cache_key": "v1", "tags": ["a", "b"]}
PLACES = ("authorization", "x-api-key", "api-key", "openai-organization", "openai-project")
SPELT = (
    "Bearer {}", "bearer {}", "Bearer  {}", "{}", "Bearer {} ", "Bearer {},", "Basic {}",
    "Bearer {}\t", "Bearer {}, Bearer {}", '"Bearer {}"', "Bearer {};", "Bearer%20{}",
)  # fmt: skip
LOOK_UPS = [100, pytest.param(10_000, marks=pytest.mark.slow)]

Headers = list[tuple[str, str]]


class Asker:
    """One connection that is kept open, as a pool of many clients would be."""

    def __init__(self, served: Served) -> None:
        self._line = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=60)

    def cached(self, headers: Headers, fields: dict[str, Any] | None = None) -> int:
        """Tokens that were loaded."""
        body = json.dumps({"prompt": PROMPT, "max_tokens": 1, **(fields or {})}).encode()
        self._line.putrequest("POST", "/v1/completions")
        for name, value in [*headers, ("content-length", str(len(body)))]:
            self._line.putheader(name, value)
        self._line.endheaders(body)
        answer = self._line.getresponse()
        told = json.loads(answer.read())
        assert answer.status == 200, told
        found: int = told["usage"]["prompt_cache_hit_tokens"]
        return found

    def close(self) -> None:
        self._line.close()


def names_like(rng: random.Random) -> dict[str, Any]:
    """Some of what the victim said, or something near it."""
    near = ["drafts", "v1", "a", "b", "", "drafts\0v1", "a\0b", "ab", KEY, f"client {KEY}"]
    fields: dict[str, Any] = {"kv_cache": {}}
    for name in ("namespace", "cache_key"):
        if rng.random() < 0.6:
            fields["kv_cache"][name] = rng.choice([NAMES[name], *near])
    if rng.random() < 0.6:
        fields["kv_cache"]["tags"] = rng.choice([["a", "b"], ["b", "a", "a"], ["a"], ["a,b"], []])
    if rng.random() < 0.3:
        fields["prompt_cache_key"] = rng.choice(near)
    if rng.random() < 0.3:
        fields["user"] = KEY
    return fields


def strangers(rng: random.Random) -> Iterator[tuple[Headers, dict[str, Any]]]:
    """Credentials that are nobody's but near the victim's; no two of them alike."""
    for number in range(10**9):
        odd = rng.choice([KEY, KEY.upper(), KEY[:-1], KEY + "x", OTHER_KEY, ""])
        spelt = rng.choice(SPELT)
        headers = [(rng.choice(PLACES), spelt.format(*[odd] * spelt.count("{}")))]
        headers += [(rng.choice(PLACES), f"{odd}{number}")]
        if rng.random() < 0.3:
            headers += [("x-forwarded-user", KEY), ("x-request-id", KEY)]
        rng.shuffle(headers)
        yield headers, names_like(rng)


def other_tenants(rng: random.Random) -> Iterator[tuple[Headers, dict[str, Any]]]:
    """What a gateway would name, near the victim's name; no two of them alike."""
    for number in range(10**9):
        near = rng.choice(["alice", "Alice", "alice ", "gateway alice", "client alice", "alic"])
        secret = ("x-thinkonce-engine-secret", SECRET)
        tenant = ("x-thinkonce-tenant", f"{near}{rng.choice(['', ':', ' ', '/'])}{number}")
        yield [secret, tenant, ("authorization", f"Bearer {KEY}")], names_like(rng)


@pytest.mark.parametrize("count", LOOK_UPS)
@pytest.mark.parametrize("is_behind_gateway", [False, True])
def test_no_look_up_of_a_stranger_finds_anything(
    serve: Serve, tmp_path: Path, count: int, is_behind_gateway: bool
) -> None:
    victim: Headers = [("authorization", f"Bearer {KEY}")]
    if is_behind_gateway:
        gateway = [("x-thinkonce-engine-secret", SECRET), ("x-thinkonce-tenant", "alice")]
        victim = [*gateway, *victim]
    secret = SECRET if is_behind_gateway else ""
    rng = random.Random(count)
    attackers = (other_tenants if is_behind_gateway else strangers)(rng)
    kv = Kv(chunk=CHUNK, store=str(tmp_path / "kv"))
    asked: dict[str, Any]
    for asked in ({}, {"kv_cache": NAMES}):  # the second server finds the first one's on disk
        served = serve(kv=kv, secret=secret)
        asker = Asker(served)
        try:
            asker.cached(victim, asked)
            assert served.engine.disk is not None
            assert served.engine.disk.flush(60)
            found = [asker.cached(*next(attackers)) for _ in range(count // 2)]
            assert sum(found) == 0
            assert asker.cached(victim, asked) == 2 * CHUNK, "the victim itself finds it"
        finally:
            asker.close()
    last = Asker(serve(kv=kv, secret=secret))
    try:
        assert sum(last.cached(*next(attackers)) for _ in range(50)) == 0
        assert last.cached(victim) == 2 * CHUNK, "on disk"
    finally:
        last.close()
