"""A request kept beside its answer: every key can be made again from it, and nothing else is in."""

from __future__ import annotations

import random
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkonce.errors import CorruptEntry
from thinkonce.request.controls import DEFAULTS, Controls
from thinkonce.request.kept import (
    MOST_PACKED,
    KeptRequest,
    may_hold_credential,
    pack,
    read_parts,
    unpack,
)
from thinkonce.request.key import Keyer, request_parts, wanted_parts

WHERE = ("chat/completions", "main", "t" * 32, "")
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi 中 \x00"}]}
SECRET = b"s" * 32

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | texts
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


def parts_of(
    controls: Controls = DEFAULTS,
    body: dict[str, Any] = BODY,
    headers: tuple[tuple[bytes, bytes], ...] = (),
    query: bytes = b"",
) -> bytes:
    return request_parts(WHERE, wanted_parts(controls), body, headers, query)


@pytest.mark.parametrize(
    "controls",
    [
        Controls(),
        Controls(label="override"),
        Controls(label="mine", override=True),
        Controls(label="mine", batch_mode=True),
        Controls(context_aware=False),
    ],
)
@pytest.mark.parametrize("query", [b"", b"a=1&b=%20"])
@pytest.mark.parametrize("headers", [(), ((b"anthropic-version", b"2023-06-01\xff"),)])
def test_a_kept_request_gives_the_key_it_was_kept_under(
    controls: Controls, query: bytes, headers: tuple[tuple[bytes, bytes], ...]
) -> None:
    parts = parts_of(controls, headers=headers, query=query)
    kept = read_parts(unpack(pack(parts)))
    assert kept.parts() == parts


@given(body=st.dictionaries(texts, values, max_size=4))
def test_nothing_of_a_body_is_lost(body: dict[str, Any]) -> None:
    parts = parts_of(body=body)
    assert read_parts(unpack(pack(parts))).parts() == parts


def test_requests_share_names_so_that_short_ones_become_short() -> None:
    assert len(pack(parts_of())) < len(parts_of()) * 0.75


def test_a_request_too_large_to_be_kept_is_not_kept() -> None:
    picture = random.Random(1).randbytes(MOST_PACKED).hex()
    assert pack(parts_of(body={"picture": picture[:MOST_PACKED]}))
    assert pack(parts_of(body={"picture": picture * 2})) == b""


@pytest.mark.parametrize(
    "packed",
    [b"", b"\x02abc", b"\x01", b"\x01\xff\xff", pack(parts_of())[:-3], b"\x00" + pack(b"x")],
)
def test_damage_is_found(packed: bytes) -> None:
    with pytest.raises(CorruptEntry):
        read_parts(unpack(packed))


@pytest.mark.parametrize("parts", [b"", b"\xc0", b"\x90", Keyer(SECRET).key_of(b"x").digest])
def test_parts_of_another_kind_are_no_request(parts: bytes) -> None:
    with pytest.raises(CorruptEntry):
        read_parts(parts)


def test_a_bomb_is_not_unpacked() -> None:
    packer = zlib.compressobj(9, wbits=-15)
    bomb = b"\x01" + b"".join(packer.compress(bytes(2**24)) for _ in range(5)) + packer.flush()
    with pytest.raises(CorruptEntry, match="cut off"):
        unpack(bomb)


def test_a_kept_request_says_what_counted() -> None:
    kept = read_parts(parts_of(Controls(label="l", context_aware=False)))
    assert kept == KeptRequest(*WHERE, label="l", mode="context-free", identity=BODY)


@pytest.mark.parametrize(
    "query",
    [
        *("key=x", "a=1&API-KEY=x", "access_token=", "%6bey=x", "x=1&sig=y", "api-version=1;key=x"),
        *("subscription-key=x", "access_key=x", "pwd=x", "jwt=x", "beta=true&id=x", "x", "=x"),
    ],
)
def test_a_query_that_may_hold_a_credential_is_told(query: str) -> None:
    assert may_hold_credential(query.encode())


@pytest.mark.parametrize("query", ["", "beta=true", "api%2Dversion=1&alt=sse", "&&"])
def test_other_queries_are_kept(query: str) -> None:
    assert not may_hold_credential(query.encode())


@pytest.mark.parametrize("name", ["cookie", "x-goog-api-key", "x-auth-token", "x-session-id"])
def test_a_header_that_may_be_a_credential_is_told(name: str) -> None:
    assert may_hold_credential(b"", [(b"openai-beta", b"x"), (name.encode(), b"y")])
    assert not may_hold_credential(b"", [(b"openai-beta", b"x"), (b"anthropic-version", b"y")])
