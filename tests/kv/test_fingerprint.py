"""What attention state depends on: each field of it, and nothing of the process."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from thinkonce.kv.prefix.fingerprint import FINGERPRINT_BYTES, Fingerprint, digest_of_parts

FINGERPRINT = Fingerprint(
    weights="ab" * 32,
    config="{}",
    dtype="float32",
    rope='{"rope_theta": 10000.0}',
    attention="sdpa",
    chunk_tokens=128,
    tokenizer="cd" * 32,
    runtime="torch 2.13.0",
)


def test_the_digest_is_the_same_in_every_process() -> None:
    # A known value: a store written by another process must still be found.
    assert FINGERPRINT.digest().hex() == (
        "0610a8bc86eef51b07ea9011a431f30710c7a2b52390e4de716f823a268f3304"
    )
    assert len(FINGERPRINT.digest()) == FINGERPRINT_BYTES


@pytest.mark.parametrize("name", [field.name for field in fields(Fingerprint)])
def test_a_change_of_any_field_makes_another_model_of_it(name: str) -> None:
    old = getattr(FINGERPRINT, name)
    other = replace(FINGERPRINT, **{name: old + 1 if isinstance(old, int) else f"{old}x"})
    assert other.digest() != FINGERPRINT.digest()
    assert FINGERPRINT.differences(other) == (name,)


def test_a_text_that_moves_from_one_field_to_the_next_shows() -> None:
    assert digest_of_parts(["ab", "c"], 16) != digest_of_parts(["a", "bc"], 16)
    assert digest_of_parts(["", "a"], 16) != digest_of_parts(["a", ""], 16)
