"""The blocks of one text that is read from its beginning, and whose each of them is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from thinkonce.kv.prefix.blocks import Block, blocks_of
from thinkonce.kv.prefix.owner import Owner
from thinkonce.kv.prefix.prompt import Prompt

__all__ = ("NO_CHAIN", "Chain", "chain_of")


@dataclass(frozen=True, slots=True)
class Chain:
    """`owners`: as many as blocks, as they are called now."""

    blocks: Sequence[Block] = ()
    owners: Sequence[Owner] = ()

    def __len__(self) -> int:
        return len(self.blocks)

    def until(self, most: int) -> Chain:
        """The first `most` blocks."""
        return Chain(self.blocks[:most], self.owners[:most])


NO_CHAIN = Chain()
"""Of what is neither looked for nor kept."""


def chain_of(
    prompt: Prompt,
    chunk_tokens: int,
    fingerprint: bytes,
    owner: Owner,
    called: Callable[[Owner], Owner],
) -> Chain:
    """The full chunks of a prompt that is read exactly; `called`: what an owner is called now."""
    named = called(owner)
    blocks = list(blocks_of(prompt, chunk_tokens, fingerprint, named))
    return Chain(blocks, [named] * len(blocks))
