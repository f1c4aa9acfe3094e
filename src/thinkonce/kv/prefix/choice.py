"""Policies of eviction by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol, Self

from thinkonce.kv.prefix.eviction import LeafLru, Room, TreePolicy
from thinkonce.kv.prefix.policies.forward_decay import ForwardDecay
from thinkonce.kv.prefix.policies.guarded import Guarded
from thinkonce.kv.prefix.policies.tail import Tail

__all__ = ("POLICIES", "policy_of")


class Named(TreePolicy, Protocol):
    """A policy that the setting may name."""

    @classmethod
    def of(cls, room: Room) -> Self:
        """One that knows of no block yet."""
        ...


_ALL: tuple[type[Named], ...] = (LeafLru, ForwardDecay, Guarded, Tail)
POLICIES: Mapping[str, type[Named]] = MappingProxyType({each.name: each for each in _ALL})


def policy_of(name: str, room: Room) -> TreePolicy:
    """Raises KeyError for a name that is none."""
    return POLICIES[name].of(room)
