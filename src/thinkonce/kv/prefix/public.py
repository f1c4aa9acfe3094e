"""Beginnings of prompts that whoever runs the server has declared public: all tenants share them.

    prompt    | system prompt, tools: declared | the tenant's own            |
    blocks    |  public   |  public   |  tenant's (not wholly within) | tenant's |

The first block that is not wholly within such a beginning is named with the tenant's salt behind
the public one, and so is everything behind it: what is private stays as far apart as ever. That a
public beginning is in memory tells nobody more than that it was declared.
"""

from __future__ import annotations

from collections.abc import Sequence

from thinkonce.kv.prefix.owner import Owner

__all__ = ("NOTHING_PUBLIC", "PUBLIC", "PublicPrefixes")

PUBLIC = Owner("public")
"""Whose such blocks are. No credential makes this tenant, and no gateway names it."""


class PublicPrefixes:
    """Immutable, so for any thread."""

    def __init__(self, prefixes: Sequence[Sequence[int]] = ()) -> None:
        """`prefixes`: the token ids of each."""
        self.prefixes = tuple(tuple(each) for each in prefixes)

    def blocks(self, prompt: Sequence[int], chunk_tokens: int) -> int:
        """How many of a prompt's blocks, from the first on, are public."""
        return max((_alike(prompt, each, chunk_tokens) for each in self.prefixes), default=0)


NOTHING_PUBLIC = PublicPrefixes()


def _alike(prompt: Sequence[int], public: Sequence[int], size: int) -> int:
    blocks = min(len(prompt), len(public)) // size
    for block in range(blocks):
        part = slice(block * size, (block + 1) * size)
        if tuple(prompt[part]) != public[part]:
            return block
    return blocks
