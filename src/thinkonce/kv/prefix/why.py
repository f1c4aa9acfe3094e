"""Why a block is missing: asked of what is remembered, the surest cause first.

its name              is among those that are gone          evicted, expired, purged, no_room
its name elsewhere    is known under another owner          salt, other_tenant
                      or to another model in the folder     fingerprint
what it follows       has others behind it                  content, tail_not_stored
nothing               never_seen
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Protocol

from thinkonce.kv.prefix.blocks import Block, named_behind, packed, renamed, unpacked
from thinkonce.kv.prefix.causes import Departure, Missing
from thinkonce.kv.prefix.ghosts import Ghosts, Known
from thinkonce.kv.prefix.owner import Owner
from thinkonce.kv.prefix.tier import BlockTier

__all__ = ("OtherModels", "Why")

_MOST_SIBLINGS = 256  # that are compared with a block, the latest first
_MOST_BEGINNINGS = 32  # that are compared with a prompt none of whose blocks is known
_MOST_DEEP = 4  # of these that are compared as far as _DEEP tokens
_DEEP = 1024
_MOST_BELOW = 8  # that are read from below memory
_OF_TEMPLATES = 64  # tokens that prompts may begin with alike because all do
_GRAM = 5  # tokens
_ALIKE = 0.25  # of what follows the difference, where two prompts have hardly a beginning in common
_SALT = ("namespace", "cache_key", "tags")


class OtherModels(Protocol):
    """Models whose blocks lie in the same folder."""

    def differences(self, prompt: Sequence[int], end: int, owner: Owner) -> tuple[str, ...] | None:
        """In what a model differs that knows the first `end` tokens; None: no other does."""
        ...


class Why:
    """Of one model. Thread-safe. Of a prompt's owner it tells tokens, of others that they exist."""

    def __init__(
        self,
        fingerprint: bytes,
        chunk_tokens: int,
        ghosts: Ghosts | None,
        below: BlockTier | None = None,
        others: OtherModels | None = None,
    ) -> None:
        self._fingerprint, self._chunk = fingerprint, chunk_tokens
        self._deep = max(1, _DEEP // chunk_tokens)
        self._ghosts, self._below, self._others = ghosts or Ghosts(), below, others

    def missing(
        self, blocks: Sequence[Block], place: int, owner: Owner, *, is_admin: bool = False
    ) -> Missing:
        """Why `blocks[place]` is not known, all before it are. `owner`: as it is called now.

        That another tenant has it is told to an admin alone.
        """
        return (
            self._by_name(blocks, place, owner)
            or self._elsewhere(blocks, place, owner, is_admin=is_admin)
            or self._near(blocks, place, owner)
            or Missing("never_seen")
        )

    def ended(self, tail: Block, owner: Owner) -> None:
        """A prompt was read that ended with these tokens, behind its last full block."""
        self._ghosts.ended(tail, owner)

    # -- its name --------------------------------------------------------------------------------

    def _by_name(self, blocks: Sequence[Block], place: int, owner: Owner) -> Missing | None:
        found = self._ghosts.find(blocks[place].id)
        if found is None and (before := self._ghosts.before_purge(owner)):
            found = self._ghosts.find(self._called(blocks, place, before).id)
        if found is None:
            return None
        gone, ago = found
        return Missing(gone.cause, ago, gone.policy)

    def _called(self, blocks: Sequence[Block], place: int, owner: Owner) -> Block:
        """What `blocks[place]` is called under another owner."""
        held = (block.tokens for block in blocks)
        return next(islice(renamed(held, self._fingerprint, owner), place, None))

    # -- the same tokens elsewhere ---------------------------------------------------------------

    def _elsewhere(
        self, blocks: Sequence[Block], place: int, owner: Owner, *, is_admin: bool
    ) -> Missing | None:
        is_others = False
        for other in self._ghosts.owners():
            is_own = other.tenant == owner.tenant
            if not (is_own or (is_admin and not is_others)):
                continue
            fields = tuple(name for name in _SALT if getattr(other, name) != getattr(owner, name))
            if (is_own and not fields) or not self._has(blocks, place, other):
                continue
            if is_own:
                return Missing("salt", fields=fields)
            is_others = True
        differing = self._other_model(blocks, place, owner)
        if differing is not None:
            return Missing("fingerprint", fields=differing)
        return Missing("other_tenant") if is_others else None

    def _has(self, blocks: Sequence[Block], place: int, other: Owner) -> bool:
        """Whether that owner has what is missing; most have not even the first block."""
        first = self._called(blocks, 0, other)
        if not self._knows(first):
            return False
        return not place or self._knows(self._called(blocks, place, other))

    def _knows(self, block: Block) -> bool:
        if self._ghosts.is_here(block.id):
            return True
        return self._below is not None and bool(self._below.known([block]))

    def _other_model(
        self, blocks: Sequence[Block], place: int, owner: Owner
    ) -> tuple[str, ...] | None:
        if self._others is None:
            return None
        prompt = unpacked(b"".join(block.tokens for block in blocks))
        return self._others.differences(prompt, (place + 1) * self._chunk, owner)

    # -- what is like it -------------------------------------------------------------------------

    def _near(self, blocks: Sequence[Block], place: int, owner: Owner) -> Missing | None:
        """The nearest one of those that follow what it follows."""
        block = blocks[place]
        others = self._following(block.parent, owner)
        if not others:
            return None
        common, nearest = _longest(block.tokens, others)
        if place * self._chunk + common < _OF_TEMPLATES:
            # Prompts that begin alike because all do: with a template's words.
            asked = unpacked(b"".join(block.tokens for block in blocks[place : place + 2]))
            alike = self._most_alike(asked, others[:_MOST_BEGINNINGS], owner, 1)
            alike = alike or self._most_alike(asked, others[:_MOST_DEEP], owner, self._deep)
            if alike is None:
                return None
            common, nearest = _common(block.tokens, alike.block.tokens), alike
        if nearest.is_tail and 4 * common == len(nearest.block.tokens):
            return Missing("tail_not_stored")
        rest = unpacked(nearest.block.tokens[4 * common :]) + self._behind(nearest, owner)
        token = place * self._chunk + common
        return Missing("content", departure=Departure(token, rest, nearest.is_tail))

    def _following(self, parent: bytes, owner: Owner) -> list[Known]:
        known = self._ghosts.following(parent, owner, _MOST_SIBLINGS)
        if self._below is None:
            return known
        names = {each.block.id for each in known}
        below = self._below.following(parent, _MOST_BELOW)
        new = (block for block in below if block.id not in names)
        return known + [Known(block, owner) for block in new if _is_of(block, owner)]

    def _behind(self, known: Known, owner: Owner, blocks: int = 1) -> tuple[int, ...]:
        """Tokens that followed it, as far as so many blocks."""
        found: tuple[int, ...] = ()
        for _ in range(blocks):
            further = self._following(known.block.id, owner)
            if not further:
                break
            known = further[0]
            found += unpacked(known.block.tokens)
        return found

    def _most_alike(
        self, asked: tuple[int, ...], others: Sequence[Known], owner: Owner, blocks: int
    ) -> Known | None:
        """Of those whose next so many blocks have enough of what was asked."""
        held, best, chosen = packed(asked), _ALIKE, None
        for other in others:
            same = _common(held, other.block.tokens)
            theirs = unpacked(other.block.tokens)[same:] + self._behind(other, owner, blocks)
            ours, theirs_too = _grams(asked[same:]), _grams(theirs)
            share = len(ours & theirs_too) / max(1, min(len(ours), len(theirs_too)))
            if share >= best:
                best, chosen = share, other
        return chosen


def _is_of(block: Block, owner: Owner) -> bool:
    """Whether a block that follows another is this owner's: only then has it this name."""
    return block == next(named_behind(block.parent, [block.tokens], owner))


def _longest(tokens: bytes, others: Sequence[Known]) -> tuple[int, Known]:
    """The first of those with most tokens in common, and how many."""
    counted = [_common(tokens, other.block.tokens) for other in others]
    most = max(counted)
    return most, others[counted.index(most)]


def _common(tokens: bytes, others: bytes) -> int:
    """How many tokens two packed lists begin with alike."""
    low, high = 0, min(len(tokens), len(others)) // 4
    while low < high:
        middle = (low + high + 1) // 2
        if tokens[4 * low : 4 * middle] == others[4 * low : 4 * middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _grams(tokens: Sequence[int]) -> set[tuple[int, ...]]:
    return set(zip(*(tokens[at:] for at in range(_GRAM)), strict=False))
