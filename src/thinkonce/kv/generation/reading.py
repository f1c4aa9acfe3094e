"""One prompt on its way into the model: what was found of it, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch

from thinkonce.kv.generation.attending import Step
from thinkonce.kv.prefix.causes import Explained
from thinkonce.kv.prefix.reused import NOTHING, Reused

__all__ = ("Continued", "Found", "Put", "Reading", "ReadingStats")


@dataclass(frozen=True, slots=True)
class Continued:
    """An answer that begins at that position, with more positions than rows before it."""

    position: int
    step: Step


@dataclass(frozen=True, slots=True)
class Reading:
    """A prompt that has been read: the fp32 logits after it, and what of it was known.

    `explained`: where the terms asked for it, what was loaded and why not more. `kept_tokens`: of
    its full blocks, from the first on, those that are kept now; `written_tokens`: of all it says,
    what was kept for the first time. `reused`: what was known, by method and tier. `continued`: how
    what follows is computed, where it is in a way of its own.
    """

    logits: torch.Tensor
    cached_tokens: int
    explained: Explained | None = None
    kept_tokens: int = 0
    reused: Reused = NOTHING
    continued: Continued | None = None
    written_tokens: int = 0


class Put(IntEnum):
    """What became of a block that was to be kept: it found no room, was kept already, is now."""

    NOWHERE = 0
    KNOWN = 1
    NEW = 2


@dataclass(frozen=True, slots=True)
class Found:
    """Blocks of a prompt, from the first on, that were in memory, and behind them `below` it.

    `slower`: more is below, and sooner computed. `failed`: more is, and could not be read.
    """

    memory: int = 0
    below: int = 0
    slower: bool = False
    failed: bool = False

    @property
    def blocks(self) -> int:
        return self.memory + self.below


@dataclass(frozen=True, slots=True)
class ReadingStats:
    """Since the start: prompts begun and their tokens. What was read ahead is not among them.

    `reused`: those that were loaded, by method and tier. `not_kept` counts blocks that could not
    be stored because memory ran out, `slower` those that were on disk and were computed, because
    that is sooner done here.
    """

    prompts: int = 0
    prompt_tokens: int = 0
    not_kept: int = 0
    slower: int = 0
    reused: Reused = NOTHING

    @property
    def cached_tokens(self) -> int:
        return self.reused.total

    @property
    def disk_tokens(self) -> int:
        """Of the loaded ones, those that were not in memory."""
        return self.reused.on("disk")
