"""Opens what questions are compared with: embedder, verifier, judge, indexes, what was learned."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from thinkonce.clock import Clock
from thinkonce.entry import Entry
from thinkonce.meaning.audit.audits import Audits
from thinkonce.meaning.audit.judge import Judge
from thinkonce.meaning.embedders.embedder import open_embedder
from thinkonce.meaning.embedders.embeddings import Embeddings
from thinkonce.meaning.index.spaces import Spaces
from thinkonce.meaning.matching import Meaning
from thinkonce.meaning.remote.chat import Chat
from thinkonce.meaning.rulebook import Rulebook
from thinkonce.meaning.stored import Stored
from thinkonce.meaning.verdict.verifier import open_verifier
from thinkonce.meaning.verifiers.verification import Verification
from thinkonce.settings.semantic import Namespace, Semantic
from thinkonce.tiers.memory import MemoryTier
from thinkonce.tiers.tier import StoreTier, Tier

__all__ = ("open_meaning",)

JUDGE_TIMEOUT = 30.0  # seconds; nobody waits for a judge
REMEMBERED = 4  # of the bound, what vectors of texts take: a quarter


def open_meaning(
    options: Semantic,
    namespaces: Mapping[str, Namespace],
    *,
    tiers: Callable[[], Sequence[Tier]],
    memory: MemoryTier,
    store: StoreTier | None,
    words: Callable[[Entry], str | None],
    data: Path | None,
    clock: Clock,
    chance: Callable[[], float] = random.random,
) -> Meaning:
    """Takes seconds: models are loaded. `data` is the data folder.

    Raises ConfigError naming the setting for a model that cannot be had.
    """
    with ExitStack() as opened:
        embedder = open_embedder(options.embedder, api_key=options.embedder_key)
        remembered = options.max_bytes // REMEMBERED
        embeddings = Embeddings(
            embedder, timeout=options.embedder_timeout, max_bytes=remembered, clock=clock
        )
        opened.callback(embeddings.close)
        verifier = open_verifier(options.verifier, data=data, api_key=options.verifier_key)
        verification = None if verifier is None else Verification(verifier, clock=clock)
        if verification is not None:
            opened.callback(verification.close)
        chat = None
        if options.judge:
            chat = Chat("semantic.judge", options.judge, options.judge_key, JUDGE_TIMEOUT)
        ledger = None if store is None else store.ledger
        audits = Audits(Judge(embeddings.get, chat), ledger, clock=clock, dice=chance)
        opened.callback(audits.close)
        room = options.max_bytes - remembered
        spaces = Spaces(memory, store, embedder, max_bytes=room)
        opened.pop_all()
    rulebook = Rulebook(options, namespaces, embedder, verifier, audits)
    stored = Stored(spaces, tiers, clock)
    return Meaning(rulebook, stored, embeddings, verification, audits, words)
