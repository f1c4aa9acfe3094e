"""Whose a prompt is."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ("NOBODY", "Owner")


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a prompt is: attention state is never shared between two owners.

    `tenant` stands for a credential and comes from whoever checked it. `namespace`, `cache_key`
    and `tags` (sorted, each once) are the tenant's own words; they keep apart and never bring
    together. `era` tells what was purged before: state from an earlier one is never found.
    """

    tenant: str = ""
    namespace: str = ""
    cache_key: str = ""
    tags: tuple[str, ...] = ()
    era: str = ""


NOBODY = Owner()
"""Of callers without a credential."""
