"""A prefix from disk gives the bits that reading it anew gives, in the process that comes next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from small_families import network
from test_exact import CHUNK, DTYPES, MODEL, ROOM, generator, random_tokens, read

from thinkonce.kv.disk.record import Form, Plain
from thinkonce.kv.disk.sealed import Sealed
from thinkonce.kv.disk.tier import DiskTier
from thinkonce.kv.generation.exact import exact_generator
from thinkonce.kv.generation.keeping import Keeping
from thinkonce.kv.generation.reusing import ReusingGenerator
from thinkonce.kv.generation.support import FAMILIES, shape_of
from thinkonce.kv.prefix.asking import Asking
from thinkonce.kv.prefix.index import PrefixIndex
from thinkonce.kv.prefix.owner import Owner
from thinkonce.kv.prefix.terms import Terms
from thinkonce.tiers.cipher import Cipher

pytestmark = pytest.mark.usefixtures("one_thread")

LONG = 20.0


@contextmanager
def reader(
    model: Any, folder: Path, room: int = ROOM, form: Form | None = None
) -> Iterator[ReusingGenerator]:
    """As a process of its own would have it: nothing in memory, and the folder."""
    tier = DiskTier(folder, MODEL, 2**26, form=form)
    try:
        yield exact_generator(
            Keeping(
                model, chunk_tokens=CHUNK, fingerprint=MODEL, kept=PrefixIndex(room), below=tier
            ),
            frozenset(),
        )
        assert tier.flush(LONG)
    finally:
        tier.close()


def stored(model: Any, folder: Path, prompt: list[int]) -> None:
    with reader(model, folder) as found:
        read(found, prompt, tokens=0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_prefix_from_disk_gives_the_bits_of_reading_it_anew(
    family: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    model, shared = network(family, dtype), random_tokens(3 * CHUNK)
    stored(model, tmp_path, shared + random_tokens(7))
    cold = generator(model, None)
    with reader(model, tmp_path) as warm:
        for tail in (1, 3, CHUNK + 1):
            prompt = shared + random_tokens(tail, seed=tail)
            found = read(warm, prompt, tokens=2)
            assert found.cached == 3 * CHUNK
            assert found.same_as(read(cold, prompt, tokens=2)), f"a tail of {tail}"
        assert warm.stats.disk_tokens == 3 * CHUNK, "from then on it is in memory"


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_sealed_blocks_with_a_life_give_the_same_bits(family: str, tmp_path: Path) -> None:
    model, shared = network(family, torch.bfloat16), random_tokens(3 * CHUNK)
    sealed, lived = Sealed(Cipher([b"k" * 32]), b"s" * 32), Terms(life=300.0)
    with reader(model, tmp_path, form=sealed) as first:
        first.read(Asking.of([*shared, 1], terms=lived), lambda: False)
    cold = read(generator(model, None), [*shared, 2, 3], tokens=2)
    with reader(model, tmp_path, form=sealed) as warm:
        found = read(warm, [*shared, 2, 3], tokens=2)
    assert found.cached == 3 * CHUNK
    assert found.same_as(cold)


def test_what_memory_has_no_room_for_is_found_on_disk(tmp_path: Path) -> None:
    model, prompt = network("llama", torch.float32), random_tokens(5 * CHUNK + 1)
    block = shape_of(model).bytes_a_token * CHUNK
    cold = read(generator(model, None), prompt, tokens=2)
    with reader(model, tmp_path, room=2 * block) as warm:
        assert read(warm, prompt, tokens=2).same_as(cold)
        assert warm.keeping.below is not None
        assert warm.keeping.below.flush(LONG)
        again = read(warm, prompt, tokens=2)
        assert again.cached == 5 * CHUNK
        assert again.same_as(cold)


def test_what_is_on_disk_alone_was_written_once(tmp_path: Path) -> None:
    model, prompt = network("llama", torch.float32), random_tokens(5 * CHUNK + 1)
    anew = Asking.of(prompt, terms=Terms(reads=False))
    with reader(model, tmp_path, room=2 * shape_of(model).bytes_a_token * CHUNK) as warm:
        written = []
        for asking in (Asking.of(prompt), anew):
            found = warm.read(asking, lambda: False)
            assert found is not None
            assert found.kept_tokens == 5 * CHUNK
            written.append(found.written_tokens)
            assert warm.keeping.below is not None
            assert warm.keeping.below.flush(LONG)
        assert written == [5 * CHUNK, 0]


def test_what_was_in_memory_before_there_was_room_on_disk_follows(tmp_path: Path) -> None:
    model, prompt = network("llama", torch.float32), random_tokens(3 * CHUNK + 1)
    with reader(model, tmp_path) as warm:
        tier = warm.keeping.below
        assert isinstance(tier, DiskTier)
        tier._broken_until = float("inf")
        read(warm, prompt, tokens=0)
        tier._broken_until = 0.0
        read(warm, prompt, tokens=0)
    with reader(model, tmp_path) as later:
        assert read(later, prompt, tokens=0).cached == 3 * CHUNK


def damage(folder: Path) -> None:
    """One bit in the last state that was written."""
    (path,) = folder.rglob("*.blocks")
    raw = bytearray(path.read_bytes())
    raw[-100] ^= 0x40
    path.write_bytes(raw)


def test_a_damaged_block_is_computed(tmp_path: Path) -> None:
    model, prompt = network("llama", torch.float32), random_tokens(3 * CHUNK + 1)
    stored(model, tmp_path, prompt)
    damage(tmp_path)
    with reader(model, tmp_path) as warm:
        found = read(warm, prompt, tokens=2)
        assert found.cached == 2 * CHUNK
        assert found.same_as(read(generator(model, None), prompt, tokens=2))


def test_a_damaged_block_that_was_not_told_from_a_good_one_would_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: what the tests above compare does change with one bit of a block."""
    model, prompt = network("llama", torch.float32), random_tokens(3 * CHUNK + 1)
    stored(model, tmp_path, prompt)
    damage(tmp_path)
    size = shape_of(model).bytes_a_token * CHUNK
    monkeypatch.setattr(Plain, "state_in", lambda self, record, block: record[-size:])
    with reader(model, tmp_path) as warm:
        found = read(warm, prompt, tokens=0)
        assert found.cached == 3 * CHUNK
        assert not found.same_as(read(generator(model, None), prompt, tokens=0))


def test_owners_share_nothing_on_disk(tmp_path: Path) -> None:
    model, prompt = network("llama", torch.float32), random_tokens(3 * CHUNK + 1)
    with reader(model, tmp_path) as one:
        read(one, prompt, Owner("one"), tokens=0)
    with reader(model, tmp_path) as later:
        assert read(later, prompt, Owner("two"), tokens=0).cached == 0
        assert read(later, prompt, Owner("one", "space"), tokens=0).cached == 0
        assert read(later, prompt, Owner("one"), tokens=0).cached == 3 * CHUNK


def test_where_computing_is_sooner_nothing_is_loaded(tmp_path: Path) -> None:
    model, prompt = network("llama", torch.float32), random_tokens(3 * CHUNK + 1)
    stored(model, tmp_path, prompt)
    with reader(model, tmp_path) as slow:
        slow.rates.prefill.add(1, 0.001)
        slow.rates.load.add(1, 0.002)
        found = read(slow, prompt, tokens=2)
        assert (found.cached, slow.stats.slower) == (0, 3)
        assert found.same_as(read(generator(model, None), prompt, tokens=2))


def test_what_lies_on_disk_counts_as_known_in_the_line_where_it_is_sooner_loaded(
    tmp_path: Path,
) -> None:
    model, prompt = network("llama", torch.float32), random_tokens(3 * CHUNK + 1)
    stored(model, tmp_path, prompt[: 2 * CHUNK + 1])
    with reader(model, tmp_path) as later:
        assert later.known(Asking.of(prompt))() == 2 * CHUNK
        known = later.known(Asking.of(prompt))
        read(later, prompt, tokens=0)
        assert known() == 3 * CHUNK, "asked again, memory has more by now"
    with reader(model, tmp_path) as slow:
        slow.rates.prefill.add(1, 0.001)
        slow.rates.load.add(1, 0.002)
        assert slow.known(Asking.of(prompt))() == 0
