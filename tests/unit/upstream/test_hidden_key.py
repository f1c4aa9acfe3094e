"""An upstream's answer that repeats the gateway's own key, wherever its pieces are cut."""

from __future__ import annotations

import asyncio
import gzip
import itertools

from hypothesis import given
from hypothesis import strategies as st

from thinkonce.upstream.exchange import Exchange

KEY = b"sk-own-key"


class Pieces(Exchange):
    """What came off a socket, in these pieces."""

    def __init__(self, pieces: list[bytes], headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(401, headers, raw=False)
        self._pieces = iter([*pieces, b""])

    async def _read(self) -> bytes:
        return next(self._pieces, b"")

    def close(self) -> None:
        pass


def cut(text: bytes, places: list[int]) -> list[bytes]:
    at = [0, *sorted({min(place, len(text)) for place in places}), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(at) if a < b]


def read(exchange: Exchange) -> bytes:
    whole = asyncio.run(exchange.read_all(10_000))
    assert whole is not None
    return whole


parts = st.lists(st.sampled_from([KEY, b"sk-own-", b"x", b"key", b"", b"wrong: "]), max_size=8)


@given(parts, st.lists(st.integers(0, 80), max_size=10))
def test_the_key_is_gone_and_nothing_else(words: list[bytes], places: list[int]) -> None:
    text = b"".join(words)
    exchange = Pieces(cut(text, places))
    exchange.hide(KEY)
    assert read(exchange) == text.replace(KEY, b"***")


def test_nothing_is_kept_back_that_cannot_become_the_key() -> None:
    exchange = Pieces([b"data: sk-other\n\n", b"ends in sk-o", b"wn-key"])
    exchange.hide(KEY)

    async def pieces() -> list[bytes]:
        return [await exchange.read() for _ in range(4)]

    assert asyncio.run(pieces()) == [b"data: sk-other\n\n", b"ends in ", b"***", b""]


def test_in_compressed_answers_and_headers_too() -> None:
    headers = ((b"content-encoding", b"gzip"), (b"x-told", b"not " + KEY))
    exchange = Pieces(cut(gzip.compress(b"wrong: " + KEY), [5, 20]), headers)
    exchange.hide(KEY)
    assert read(exchange) == b"wrong: ***"
    assert dict(exchange.headers)[b"x-told"] == b"not ***"
