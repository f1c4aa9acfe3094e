"""Bytes of entries: whole, ours and under their own key, or corrupt."""

from math import inf

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkonce.entry import Entry, Form, Meta
from thinkonce.errors import CorruptEntry
from thinkonce.likeness import Hint
from thinkonce.tiers.codec import VERSION, Codec
from thinkonce.tiers.tier import Key
from thinkonce.values import keep

DIGEST = bytes(range(32))
KEY = Key("k", DIGEST)
CODEC = Codec(b"secret" * 6)

texts = st.text(st.characters(codec="utf-8"), max_size=8)
seconds = st.floats(allow_nan=False)
metas = st.builds(
    Meta,
    texts,
    texts,
    texts,
    texts,
    st.lists(texts, max_size=3).map(tuple),
    st.sampled_from(["high", "medium", "low", "pinned"]),
    texts,
    texts,
)


def entry(value, **fields):
    kept = keep(value)
    meta = fields.pop("meta", Meta(scope="f", tags=("t",)))
    return Entry("k", kept.payload, meta, DIGEST, kept.form, kept.thaw, kept.size, **fields)


STORED = [
    name
    for name in Entry.__dataclass_fields__
    # Kept by one process only, or set by the tier that holds the entry.
    if name not in {"thaw", "size", "weight", "hits", "floor", "place", "tally", "told"}
    and name not in {"fresh_until", "forget_at", "inline_until"}
]


@given(metas, st.tuples(*[seconds] * 7), st.integers(0, 2**53), st.integers(0, 2**63))
def test_everything_that_is_said_of_an_entry_survives(meta, times, tokens, epoch):
    names = ("cost", "seconds", "created_at", "expires_at", "gone_at")
    names += ("stale_while_revalidate", "stale_if_error")
    put = entry(
        {"a": 1},
        meta=meta,
        tokens=tokens,
        epoch=epoch,
        request=b"asked",
        hint=Hint(bytes(range(32)), "限额是多少"),
        **dict(zip(names, times, strict=True)),
    )
    found = CODEC.decode(KEY, CODEC.encode(DIGEST, put))
    for name in STORED:
        assert getattr(found, name) == getattr(put, name), name
    assert found.thaw(found.payload) == {"a": 1}


def test_a_new_field_of_an_entry_is_not_forgotten_here():
    assert STORED == [
        "key", "payload", "meta", "digest", "form", "payload_size", "cost", "seconds", "tokens",
        "created_at", "expires_at", "gone_at", "stale_while_revalidate", "stale_if_error", "epoch",
        "request", "hint",
    ]  # fmt: skip


def test_entries_with_equal_metas_share_one():
    first, second = (CODEC.decode(KEY, CODEC.encode(DIGEST, entry(n))) for n in (1, 2))
    assert first.meta is second.meta


def test_the_overhead_is_small():
    put = entry("x" * 2048, cost=0.1, created_at=1.7e9, expires_at=1.7e9, gone_at=inf)
    assert len(CODEC.encode(DIGEST, put)) < 2048 + 120


STORED_BYTES = CODEC.encode(DIGEST, entry({"question": "answer", "n": [1, 2, 3]}))


@given(st.integers(0, len(STORED_BYTES) * 8 - 1))
def test_one_flipped_bit_anywhere_is_corrupt(bit):
    spoilt = bytearray(STORED_BYTES)
    spoilt[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CorruptEntry):
        CODEC.decode(KEY, bytes(spoilt))


@given(st.integers(0, len(STORED_BYTES) - 1), st.binary(max_size=8))
def test_bytes_cut_off_or_added_are_corrupt(length, more):
    with pytest.raises(CorruptEntry):
        CODEC.decode(KEY, STORED_BYTES[:length])
    if more:
        with pytest.raises(CorruptEntry):
            CODEC.decode(KEY, STORED_BYTES + more)


@given(st.binary(max_size=200))
def test_any_other_bytes_are_corrupt(noise):
    with pytest.raises(CorruptEntry):
        CODEC.decode(KEY, noise)
    with pytest.raises(CorruptEntry):
        CODEC.decode(KEY, bytes([VERSION]) + noise)


def test_an_entry_moved_to_another_key_is_corrupt():
    with pytest.raises(CorruptEntry, match="checksum"):
        CODEC.decode(Key("k", DIGEST[::-1]), STORED_BYTES)


def test_an_entry_of_another_installation_is_corrupt():
    with pytest.raises(CorruptEntry, match="checksum"):
        Codec(b"another secret").decode(KEY, STORED_BYTES)


def test_an_entry_of_a_later_version_is_refused_by_its_number():
    with pytest.raises(CorruptEntry, match="version 03"):
        CODEC.decode(KEY, b"\x03" + STORED_BYTES[1:])


def test_the_checksum_is_keyed_by_more_than_the_secret_itself():
    from blake3 import blake3

    secret = b"s" * 32
    stored = Codec(secret).encode(DIGEST, entry(1))
    assert stored[1:17] != blake3(DIGEST + stored[17:], key=secret).digest(16), (
        "the secret also keys digests: the two uses must not share a key"
    )


def test_a_form_of_the_future_is_corrupt():
    put = entry(1)
    put.form = 99
    put.payload = b"x"
    with pytest.raises(CorruptEntry, match="unknown form 99"):
        CODEC.decode(KEY, CODEC.encode(DIGEST, put))


def test_replies_are_kept_as_they_are_and_copies_are_refused():
    reply = Entry("k", b"\xc1raw", Meta(), DIGEST, Form.REPLY)
    assert CODEC.decode(KEY, CODEC.encode(DIGEST, reply)).payload == b"\xc1raw"
    with pytest.raises(TypeError, match="lock"):
        CODEC.encode(DIGEST, Entry("k", [__import__("threading").Lock()], Meta(), form=Form.COPIED))


def test_the_header_may_grow_at_its_end():
    class Longer(msgspec.Struct, array_like=True):
        form: int
        rest: int = 7

    # What a later release appends, this one skips: that is what `array_like` promises.
    raw = msgspec.msgpack.encode([1, 2, 3, "more"])
    assert msgspec.msgpack.decode(raw, type=Longer) == Longer(1, 2)
