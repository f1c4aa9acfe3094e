"""Whose a prompt is."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ("NOBODY", "Owner")


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a prompt is: attention state is never shared between two owners.

    `tenant` stands for a credential and comes from whoever checked it. `namespace` and
    `cache_key` are the tenant's own words; they keep apart and never bring together.
    """

    tenant: str = ""
    namespace: str = ""
    cache_key: str = ""


NOBODY = Owner()
"""Of callers without a credential."""
