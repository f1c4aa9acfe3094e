"""A trace through the very index that serves: what was loaded, and how much had to be read."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

from thinkonce.clock import Clock
from thinkonce.kv.planning.clairvoyant import Clairvoyant
from thinkonce.kv.planning.trace import Request, Trace
from thinkonce.kv.prefix.blocks import BLOCK_ID_BYTES, Block, packed
from thinkonce.kv.prefix.choice import POLICIES, policy_of
from thinkonce.kv.prefix.eviction import Room, TreePolicy
from thinkonce.kv.prefix.index import PrefixIndex

__all__ = ("PLANNED", "Replayed", "replayed")

PLANNED = (*POLICIES, Clairvoyant.name)
_ROOT = bytes(BLOCK_ID_BYTES)


class Replayed(NamedTuple):
    """One policy at one size, in blocks. `hit_ratio` is of tokens; `read_*` are the tokens of a
    prompt that had to be read, at the median, the 95th and the 99th percentile; `late` is the
    share of prompts of which more than the target had to be read, None without a target.
    """

    policy: str
    blocks: int
    hit_ratio: float
    read_p50: int
    read_p95: int
    read_p99: int
    evicted: int
    late: float | None = None


def replayed(
    trace: Trace, policy: str, blocks: int, within: int = 0, counted_from: int = 0
) -> Replayed:
    """Requests one after the other, as the model server's worker takes them.

    `within`: tokens of a prompt that may be read within its target, 0: no target. Those before
    number `counted_from` fill memory and are not counted in anything but `evicted`.
    """
    prompts = [_blocks(asked, trace.block_tokens) for asked in trace.requests]
    now = 0.0
    clock = Clock(wall=lambda: now, monotonic=lambda: now)
    index: PrefixIndex[None] = PrefixIndex(blocks, _policy(policy, prompts, blocks, within), clock)
    read: list[int] = []
    for asked, prompt in zip(trace.requests, prompts, strict=True):
        now = asked.at
        with index.hold(prompt[: _usable(asked, trace.block_tokens)]) as hold:
            known = len(hold.nodes) * trace.block_tokens
            for block in prompt[len(hold.nodes) :]:
                if not hold.extend(block, None, 1):
                    break
        read.append(asked.tokens - known)
    del read[:counted_from]
    tokens = sum(asked.tokens for asked in trace.requests[counted_from:])
    return Replayed(
        policy=policy,
        blocks=blocks,
        hit_ratio=(tokens - sum(read)) / max(1, tokens),
        read_p50=_percentile(read, 0.5),
        read_p95=_percentile(read, 0.95),
        read_p99=_percentile(read, 0.99),
        evicted=index.stats().evicted,
        late=sum(each > within for each in read) / max(1, len(read)) if within else None,
    )


def _policy(name: str, prompts: Sequence[Sequence[Block]], blocks: int, within: int) -> TreePolicy:
    if name == Clairvoyant.name:
        return Clairvoyant([block.id for block in prompt] for prompt in prompts)
    return policy_of(name, Room(blocks, lambda: float(within)))


def _usable(asked: Request, block_tokens: int) -> int:
    """The last token is always computed, with its block."""
    return max(0, asked.tokens - 1) // block_tokens


def _blocks(asked: Request, block_tokens: int) -> list[Block]:
    """Full blocks alone are kept. Tokens are not known: as many zeros stand for them."""
    held, found, parent = packed([0] * block_tokens), list[Block](), _ROOT
    for name in asked.blocks[: asked.tokens // block_tokens]:
        id = blake2b(name.encode(), digest_size=BLOCK_ID_BYTES).digest()
        found.append(Block(id, parent, held))
        parent = id
    return found


def _percentile(values: Sequence[int], share: float) -> int:
    """The nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
