"""Policies of eviction by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from thinkonce.kv.prefix.eviction import LeafLru, TreePolicy
from thinkonce.kv.prefix.policies.forward_decay import ForwardDecay
from thinkonce.kv.prefix.policies.guarded import Guarded

__all__ = ("POLICIES", "policy_of")

GHOSTS = 4  # blocks that are gone and remembered, for each that fits

# By name, what makes one for a memory of so many blocks.
POLICIES: Mapping[str, Callable[[int], TreePolicy]] = MappingProxyType(
    {
        LeafLru.name: lambda blocks: LeafLru(),
        ForwardDecay.name: lambda blocks: ForwardDecay((1 + GHOSTS) * blocks),
        Guarded.name: lambda blocks: Guarded(blocks, (1 + GHOSTS) * blocks),
    }
)


def policy_of(name: str, blocks: int) -> TreePolicy:
    """`blocks`: how many fit. Raises KeyError for a name that is none."""
    return POLICIES[name](blocks)
