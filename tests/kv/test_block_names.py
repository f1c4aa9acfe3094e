"""Names of blocks: the same everywhere for the same prefix, and never for another."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from hashlib import blake2b
from itertools import chain, product, takewhile

from hypothesis import given, settings
from hypothesis import strategies as st

from thinkonce.kv.prefix.blocks import BLOCK_ID_BYTES, Block, blocks_of, packed
from thinkonce.kv.prefix.owner import Owner

MODEL = bytes(range(32))
ALICE = Owner("alice")
TOKENS = list(range(40))


def names(
    tokens: list[int], owner: Owner = ALICE, model: bytes = MODEL, chunk: int = 16
) -> list[bytes]:
    return [block.id for block in blocks_of(tokens, chunk, model, owner)]


def test_the_names_are_known_values() -> None:
    """They lie in stores and are compared between machines: a change here forgets them all."""
    assert [name.hex() for name in names(TOKENS)] == [
        "a2a911340e561820c08abdad338b11a2",
        "1ee1b0eff6e804c5059f4a7f66287e9f",
    ]


def test_the_names_follow_the_written_formula() -> None:
    def hashed(data: bytes) -> bytes:
        return blake2b(data, digest_size=BLOCK_ID_BYTES).digest()

    owner = Owner("alice", "drafts", "v2")
    parts = [part.encode() for part in ("alice", "drafts", "v2")]
    salt = hashed(b"".join(len(part).to_bytes(8, "little") + part for part in parts))
    parent = hashed(MODEL + b"alice")
    found = list(blocks_of(TOKENS, 16, MODEL, owner))
    for number, block in enumerate(found):
        tokens = TOKENS[16 * number : 16 * (number + 1)]
        held = b"".join(token.to_bytes(4, "little") for token in tokens)
        assert block == Block(hashed(parent + salt + held), parent, held)
        parent = block.id
    assert len(found) == 2, "the eight tokens behind the second block have no name"


def test_another_process_with_another_hash_seed_gives_the_same_names() -> None:
    script = (
        "from thinkonce.kv.prefix.blocks import blocks_of\n"
        "from thinkonce.kv.prefix.owner import Owner\n"
        "for block in blocks_of(range(40), 16, bytes(range(32)), Owner('alice')):\n"
        "    print(block.id.hex())\n"
    )
    environ = {**os.environ, "PYTHONHASHSEED": "17"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [name.hex() for name in names(TOKENS)]


def test_tenants_namespaces_labels_and_models_share_no_name() -> None:
    """Also where their words are one another's, or end where the other's begin."""
    words = ("", "a", "b", "ab", "a\0b")
    owners = [Owner(*each) for each in product(words, repeat=3)]
    models = (MODEL, bytes(32))
    found = [names(TOKENS, owner, model) for owner in owners for model in models]
    flat = list(chain.from_iterable(found))
    assert len(set(flat)) == len(flat) == 2 * len(owners) * len(models)


@settings(max_examples=40)
@given(
    shared=st.lists(st.integers(0, 2**32 - 1), max_size=70),
    one=st.lists(st.integers(0, 2**32 - 1), max_size=40),
    other=st.lists(st.integers(0, 2**32 - 1), max_size=40),
)
def test_two_prompts_share_the_names_of_the_chunks_they_share(
    shared: list[int], one: list[int], other: list[int]
) -> None:
    left, right = shared + one, shared + other
    both = shared_length(names(left), names(right))
    assert both == shared_length(left, right) // 16
    assert not set(names(left)[both:]) & set(names(right)[both:])


def shared_length(left: Sequence[object], right: Sequence[object]) -> int:
    pairs = zip(left, right, strict=False)
    return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))


def test_tokens_are_packed_in_four_bytes_each() -> None:
    assert packed([1, 2**32 - 1]) == b"\x01\0\0\0\xff\xff\xff\xff"
