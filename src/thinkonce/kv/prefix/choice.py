"""Policies of eviction by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from thinkonce.kv.prefix.eviction import LeafLru, TreePolicy
from thinkonce.kv.prefix.policies.forward_decay import ForwardDecay
from thinkonce.kv.prefix.policies.guarded import Guarded
from thinkonce.kv.prefix.policies.tail import Tail

__all__ = ("POLICIES", "policy_of")

GHOSTS = 4  # blocks that are gone and remembered, for each that fits

Within = Callable[[], float]
"""Tokens that can be read within the target that prompts have; 0: they have none."""

# By name, what makes one for a memory of so many blocks.
POLICIES: Mapping[str, Callable[[int, Within], TreePolicy]] = MappingProxyType(
    {
        LeafLru.name: lambda blocks, within: LeafLru(),
        ForwardDecay.name: lambda blocks, within: ForwardDecay((1 + GHOSTS) * blocks),
        Guarded.name: lambda blocks, within: Guarded(blocks, (1 + GHOSTS) * blocks),
        Tail.name: lambda blocks, within: Tail(blocks, (1 + GHOSTS) * blocks, within),
    }
)


def policy_of(name: str, blocks: int, within: Within = lambda: 0.0) -> TreePolicy:
    """`blocks`: how many fit. Raises KeyError for a name that is none."""
    return POLICIES[name](blocks, within)
