"""What a document marks stays marked: however it was read, wherever it lay, whoever reads it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_families import network, never
from test_chunk_reading import Reader, on_disk, prompt

from thinkonce.kv.prefix.asking import Asking
from thinkonce.kv.prefix.owner import ANY_DOCUMENT, Owner
from thinkonce.kv.prefix.prompt import Prompt
from thinkonce.kv.prefix.purges import PurgeRule, Purges

pytestmark = pytest.mark.usefixtures("one_thread")
RULE = PurgeRule(document="doc-0")


def test_a_block_in_too_many_documents_stays_in_all_of_them_with_one_more() -> None:
    many = Owner("t").with_documents(tuple(f"doc-{number}" for number in range(70)))
    assert many.with_documents(("more",)).documents == ANY_DOCUMENT
    assert Owner("t").with_documents(("more",)).with_documents(ANY_DOCUMENT).documents == (
        ANY_DOCUMENT
    )


def test_what_is_read_ahead_of_a_document_that_goes_on_is_marked() -> None:
    purges, asked = Purges(), prompt("doc-0", method="exact", ask=1)
    reader = Reader(network("llama", torch.float32), purges=purges)
    assert asked.spans[0].end > len(asked) // 16 * 16, "it ends in the last block"
    list(reader.preload(Asking.of(asked), never))
    assert reader.known(Asking.of(asked))() == reader.explain(Asking.of(asked)).memory_tokens == 80
    purges.add(RULE)
    reader.index.purge(RULE.holds)
    assert len(reader.index.nodes()) == 1, "what stands in front of it"
    assert reader.known(Asking.of(asked))() == reader.explain(Asking.of(asked)).memory_tokens == 16
    list(reader.preload(Asking.of(asked), never))
    assert reader.known(Asking.of(asked))() == 80
    assert reader.told(asked).cached_tokens == 80


def test_a_mark_on_disk_is_not_lost_on_who_does_not_know_it(tmp_path: Path) -> None:
    model, asked = network("llama", torch.float32), prompt("doc-0", method="exact")
    with on_disk(tmp_path) as tier:
        Reader(model, below=tier).told(asked)
        assert tier.flush(30)
        purges = Purges()
        reader = Reader(model, below=tier, purges=purges)  # as after a restart
        assert reader.told(Prompt(asked)).cached_tokens == 96
        purges.add(RULE)
        reader.index.purge(RULE.holds)
        tier.purge(RULE)
        assert reader.told(Prompt(asked)).cached_tokens == 16


def test_a_purge_while_somebody_reads_on_is_not_written_back(tmp_path: Path) -> None:
    model, asked = network("llama", torch.float32), prompt("doc-0", method="exact")
    with on_disk(tmp_path) as tier:
        reader = Reader(model, below=tier)
        reader.told(asked)
        assert tier.flush(30)

        def purged() -> bool:
            reader.index.purge(RULE.holds)
            tier.purge(RULE)
            return False

        reader.read(
            Asking.of(Prompt(asked)), purged
        )  # unmarked, it stands on these blocks meanwhile
        assert tier.flush(30)
        assert len(tier.listed()) == 1
        assert reader.told(Prompt(asked)).cached_tokens == 16
