"""The blocks of one text that is read from its beginning, and whose each of them is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from thinkonce.kv.prefix.blocks import (
    Block,
    blocks_of,
    chunk_blocks,
    first_parent,
    named_behind,
    packed,
    part_of,
)
from thinkonce.kv.prefix.owner import Owner
from thinkonce.kv.prefix.prompt import Prompt
from thinkonce.kv.prefix.public import NOTHING_PUBLIC, PUBLIC, PublicPrefixes

__all__ = ("NO_CHAIN", "Chain", "chain_of", "chunk_chain")


@dataclass(frozen=True, slots=True)
class Chain:
    """`owners`: as many as blocks, as they are called now. `public`: so many blocks, from the first
    on, are nobody's own.
    """

    blocks: Sequence[Block] = ()
    owners: Sequence[Owner] = ()
    public: int = 0

    def __len__(self) -> int:
        return len(self.blocks)

    @property
    def tokens(self) -> int:
        return sum(block.length for block in self.blocks)

    @property
    def each_owner(self) -> Sequence[Owner]:
        """Every one once, also those that differ in their documents alone."""
        return list({(owner, owner.documents): owner for owner in self.owners}.values())

    def until(self, most: int) -> Chain:
        """The first `most` blocks."""
        return Chain(self.blocks[:most], self.owners[:most], min(self.public, most))


NO_CHAIN = Chain()
"""Of what is neither looked for nor kept."""


def chain_of(
    prompt: Prompt,
    chunk_tokens: int,
    fingerprint: bytes,
    owner: Owner,
    called: Callable[[Owner], Owner],
    public: PublicPrefixes = NOTHING_PUBLIC,
) -> Chain:
    """The full chunks of a prompt that is read exactly; `called`: what an owner is called now.

    From the block on in which a marked document begins, blocks bear its mark, and have other
    names once it was purged.
    """
    documents = prompt.documents
    shared = _public_blocks(prompt, chunk_tokens, public)
    if not documents and not shared:
        named = called(owner)
        blocks = list(blocks_of(prompt, chunk_tokens, fingerprint, named))
        return Chain(blocks, [named] * len(blocks))
    held = packed(prompt)
    everybody = called(PUBLIC) if shared else PUBLIC
    blocks = list(blocks_of(prompt[: shared * chunk_tokens], chunk_tokens, fingerprint, everybody))
    owners = [everybody] * shared
    parent = blocks[-1].id if blocks else first_parent(fingerprint, owner.tenant)
    marks, named = None, owner
    for end in range((shared + 1) * chunk_tokens, len(prompt) + 1, chunk_tokens):
        within = _documents(prompt, end)
        if within != marks:
            marks, named = within, called(owner.with_documents(within))
        tokens = part_of(held, end - chunk_tokens, end)
        blocks.append(next(named_behind(parent, [tokens], named)))
        owners.append(named)
        parent = blocks[-1].id
    return Chain(blocks, owners, shared)


def chunk_chain(
    tokens: Sequence[int],
    chunk_tokens: int,
    fingerprint: bytes,
    owner: Owner,
    context: str,
) -> Chain:
    """All of a text that was encoded in that context; `owner`: marked, and as it is called now."""
    blocks = list(chunk_blocks(tokens, chunk_tokens, fingerprint, owner, context))
    return Chain(blocks, [owner] * len(blocks))


def _public_blocks(prompt: Prompt, chunk_tokens: int, public: PublicPrefixes) -> int:
    """None in which a marked document begins: what is said of that is its owner's."""
    shared = public.blocks(prompt, chunk_tokens)
    marked = min((span.start for span in prompt.spans if span.document), default=len(prompt))
    return min(shared, marked // chunk_tokens)


def _documents(prompt: Prompt, end: int) -> tuple[str, ...]:
    """What of the marked documents begins before `end`."""
    return tuple(sorted({s.document for s in prompt.spans if s.document and s.start < end}))
