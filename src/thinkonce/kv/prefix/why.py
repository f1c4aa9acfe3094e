"""Why a block is missing: asked of what is remembered, the surest cause first.

its name              is among those that are gone          evicted, expired, purged, no_room
its name elsewhere    is known under another owner          salt, other_tenant
                      or to another model in the folder     fingerprint
what it follows       has others behind it                  content, tail_not_stored
nothing               never_seen
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from thinkonce.kv.prefix.blocks import (
    Block,
    length_of,
    named_behind,
    part_of,
    renamed,
    unpacked,
)
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
_RUN, _PROBES = 5, 16  # tokens in a run that is looked for, and how many runs
_ALIKE = 0.25  # of the runs behind a difference that comes so early
_SALT = ("namespace", "cache_key", "tags")


class OtherModels(Protocol):
    """Models whose blocks lie in the same folder."""

    def differences(self, prompt: Sequence[int], end: int, owner: Owner) -> tuple[str, ...] | None:
        """In what a model differs that knows the first `end` tokens; None: no other does."""
        ...


class _Own(NamedTuple):
    """A prompt's blocks, of which the first `public` are everybody's; that at `place` is missing,
    which is not one of those.
    """

    blocks: Sequence[Block]
    place: int
    public: int

    @property
    def missing(self) -> Block:
        return self.blocks[self.place]


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
        self,
        blocks: Sequence[Block],
        place: int,
        owner: Owner,
        *,
        public: int = 0,
        is_admin: bool = False,
    ) -> Missing:
        """Why `blocks[place]` is not known, all before it are. `owner`: as it is called now, and
        whose are all behind the first `public` ones.

        That another tenant has it is told to an admin alone.
        """
        own = _Own(blocks, place, public)
        return (
            self._by_name(own, owner)
            or self._elsewhere(own, owner, is_admin=is_admin)
            or self._near(blocks, place, owner)
            or Missing("never_seen")
        )

    def ended(self, tail: Block, owner: Owner) -> None:
        """A prompt was read that ended with these tokens, behind its last full block."""
        self._ghosts.ended(tail, owner)

    # -- its name --------------------------------------------------------------------------------

    def _by_name(self, own: _Own, owner: Owner) -> Missing | None:
        found = self._ghosts.find(own.missing.id)
        if found is None and (before := self._ghosts.before_purge(owner)):
            *_, last = self._called(own, before)
            found = self._ghosts.find(last.id)
        if found is None:
            return None
        gone, ago = found
        return Missing(gone.cause, ago, gone.policy)

    def _called(self, own: _Own, owner: Owner) -> Iterator[Block]:
        """What the tenant's own blocks are called under another owner, up to the missing one."""
        held = (block.tokens for block in own.blocks[own.public : own.place + 1])
        if own.public:
            return named_behind(own.blocks[own.public - 1].id, held, owner)
        return renamed(held, self._fingerprint, owner)

    # -- the same tokens elsewhere ---------------------------------------------------------------

    def _elsewhere(self, own: _Own, owner: Owner, *, is_admin: bool) -> Missing | None:
        same, others = self._ghosts.owners(own.blocks[own.public].tokens, owner.tenant)
        for other in same:
            fields = tuple(name for name in _SALT if getattr(other, name) != getattr(owner, name))
            if fields and self._has(own, other):
                return Missing("salt", fields=fields)
        differing = self._other_model(own.blocks, own.place, owner)
        if differing is not None:
            return Missing("fingerprint", fields=differing)
        if is_admin and any(self._has(own, other) for other in others):
            return Missing("other_tenant")
        return None

    def _has(self, own: _Own, other: Owner) -> bool:
        """Whether that owner has what is missing, and all before it."""
        return all(map(self._knows, self._called(own, other)))

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
            asked = [block.tokens for block in blocks[place : place + self._deep]]
            alike = self._most_alike(asked[:2], others[:_MOST_BEGINNINGS], owner, 2)
            alike = alike or self._most_alike(asked, others[:_MOST_DEEP], owner, self._deep)
            if alike is None:
                return None
            common, nearest = _common(block.tokens, alike.block.tokens), alike
        length = nearest.block.length
        if nearest.is_tail and common == length:
            return Missing("tail_not_stored")
        here = part_of(nearest.block.tokens, common, length)
        rest = unpacked(here + self._behind(nearest, owner))
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

    def _behind(self, known: Known, owner: Owner, blocks: int = 1) -> bytes:
        """Packed tokens that followed it, as far as so many blocks."""
        found = []
        for _ in range(blocks):
            further = self._following(known.block.id, owner)
            if not further:
                break
            known = further[0]
            found.append(known.block.tokens)
        return b"".join(found)

    def _most_alike(
        self, asked: Sequence[bytes], others: Sequence[Known], owner: Owner, blocks: int
    ) -> Known | None:
        """The one with most of what was asked in so many blocks, or of which most was asked."""
        ours, near = b"".join(asked), 2 * length_of(asked[0])
        best, chosen = _ALIKE, None
        for other in others:
            theirs = other.block.tokens + self._behind(other, owner, blocks - 1)
            same = _common(ours, other.block.tokens)
            share = max(
                _share(part_of(ours, same, near), theirs), _share(part_of(theirs, same, near), ours)
            )
            if share > best:
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
    low, high = 0, min(length_of(tokens), length_of(others))
    while low < high:
        middle = (low + high + 1) // 2
        if part_of(tokens, low, middle) == part_of(others, low, middle):
            low = middle
        else:
            high = middle - 1
    return low


def _share(tokens: bytes, others: bytes) -> float:
    """Of runs of tokens here and there in the first list, how many are in the second."""
    length = length_of(tokens)
    places = range(0, length - _RUN + 1, max(1, length // _PROBES))
    found = [part_of(tokens, at, at + _RUN) in others for at in places]
    return sum(found) / len(found) if found else 0.0
