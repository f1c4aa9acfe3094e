"""Every endpoint through every transport, whole and streamed."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.conftest import Client, Kind
from gateway.upstream import Upstream
from gateway.whole_provider import provide

ASKED = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
ENDPOINTS = {
    "/chat/completions": ASKED,
    "/completions": {"model": "m", "prompt": "hi"},
    "/responses": {"model": "m", "input": "hi"},
    "/messages": ASKED | {"max_tokens": 10},
}
STREAMED = {f"{path} streamed": (path, body | {"stream": True}) for path, body in ENDPOINTS.items()}
ALL = {path: (path, body) for path, body in ENDPOINTS.items()} | STREAMED
ALL["/embeddings"] = ("/embeddings", {"model": "m", "input": ["a", "b"]})


@pytest.fixture
def kind(all_kinds: Kind) -> Kind:
    return all_kinds


@pytest.mark.parametrize(("path", "body"), ALL.values(), ids=ALL)
async def test_asking_twice_is_one_call(
    client: Client, upstream: Upstream, path: str, body: dict[str, Any]
) -> None:
    upstream.script = provide
    first, second = [await client.post(path, body) for _ in range(2)]
    assert (first.status, first.cache, second.status, second.cache) == (200, "MISS", 200, "HIT")
    assert upstream.calls == 1
    assert upstream.seen[0].json == body
    assert b'"cache_hit":true' in second.body.replace(b" ", b"")
