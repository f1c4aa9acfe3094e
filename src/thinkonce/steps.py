"""What goes into the flow, what comes out, and the steps it may ask for in between."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from thinkonce.clock import Clock
from thinkonce.entry import Entry, Form, Meta
from thinkonce.flights.singleflight import Seat
from thinkonce.freshness import Rules
from thinkonce.likeness import Likeness
from thinkonce.outcome import Match, Outcome, Reason
from thinkonce.request.controls import Controls
from thinkonce.tiers.purges import LocalPurges, PurgeLog
from thinkonce.tiers.tier import Key, Tier

__all__ = (
    "Answer",
    "Ask",
    "CallModel",
    "Draft",
    "Flow",
    "Follow",
    "Join",
    "Keep",
    "Lead",
    "Live",
    "Look",
    "Made",
    "MatchWords",
    "Renew",
    "Setting",
    "Step",
)

# -- what goes in and what comes out -------------------------------------------------------


class Draft(msgspec.Struct, frozen=True):
    """An answer made ready to be kept. `refused` says why it must not be stored."""

    payload: Any
    form: int = Form.PLAIN
    thaw: Callable[[Any], Any] | None = None
    size: int = 0
    cost: float = 0.0
    tokens: int = 0
    refused: Reason | None = None
    meta: Meta | None = None  # where the answer tells more than the request did
    request: bytes = b""  # what was asked, packed, where that is kept


@dataclass(slots=True)
class Ask:
    """One request as the flow sees it.

    `key` is None when the cache must not be used; `bypass` then says why. `draft` turns what
    the model returned into something that can be kept; it gets the seconds the model took.
    `epoch` is the purge epoch now: what a purge removes later, this request cannot bring back.
    `renewal` makes of this request the one to ask in its place where nobody waits for the answer:
    a stream that nobody reads is drained, a list that the caller goes on filling is copied. None
    of it if only the caller can make the call. `intact` says, once the model has answered, whether
    what it was given is still what `key` was made of.
    """

    key: Key | None
    meta: Meta
    controls: Controls
    call: Callable[[], Any]
    draft: Callable[[Any, float], Draft]
    epoch: int = 0
    bypass: Reason | None = None
    coalesce: bool = True
    stale_on_error: bool = True  # False: somebody else can be asked before something stale answers
    thaw: Callable[[Any], Any] | None = None  # in place of an entry's own, where it has one
    renewal: Callable[[Ask], Ask | None] | None = None
    intact: Callable[[], bool] | None = None
    likeness: Likeness | None = None  # None: only an equal request will do
    started: float | None = None  # monotonic; when the model's work began, if before CallModel
    looked: float | None = None  # monotonic; when the tiers were looked through last
    trouble: bool = False  # a tier failed while this request was served


@dataclass(slots=True)
class Made:
    """What the model gave, and the entry made of it. `stored` is false where `refused` is set."""

    raw: Any
    entry: Entry
    refused: Reason | None

    @property
    def stored(self) -> bool:
        return self.refused is None


class Live(msgspec.Struct, frozen=True):
    """An answer still arriving: a driver may land a call with it so that the caller can follow.

    `feed` is whatever the driver's callers know how to read; the flow does not look inside.
    """

    feed: Any


@dataclass(slots=True)
class Answer:
    """What the caller gets. `raw` is set for the caller whose own call made the answer, and is
    a `Live` while the answer is still arriving."""

    outcome: Outcome
    reason: Reason | None = None
    entry: Entry | None = None
    raw: Any = None
    tier: str | None = None
    match: Match | None = None
    refused: Reason | None = None
    similarity: float | None = None
    thaw: Callable[[Any], Any] | None = None  # as `Ask.thaw`
    question: str | None = None  # the entry's, where it is in other words

    @property
    def value_is_own(self) -> bool:
        """Whether the caller's own call made the answer."""
        return self.tier is None and self.outcome is not Outcome.COALESCED

    @property
    def value(self) -> Any:
        """The answer in the caller's own copy. Raises what rebuilding it raises."""
        if self.entry is None or self.value_is_own:
            return self.raw
        thaw = self.entry.thaw and (self.thaw or self.entry.thaw)
        return self.entry.payload if thaw is None else thaw(self.entry.payload)


@dataclass(slots=True)
class Setting:
    """What all requests of one cache share: tiers nearest first, rules, clock, chance.

    `purged` says whether a purge later than `entry.epoch` concerns the entry; `purges` is the
    log that the tiers and it read.
    """

    tiers: Sequence[Tier]
    rules: Rules
    clock: Clock
    chance: Callable[[], float]  # uniform [0, 1)
    why_gone: Callable[[Key], Reason | None]
    purged: Callable[[Entry], bool]
    purges: PurgeLog = field(default_factory=LocalPurges)


# -- steps: what the flow may ask for ------------------------------------------------------
# A frozen dataclass takes six times as long to make, and a miss makes a dozen.


class Look(msgspec.Struct, frozen=True):
    """Gives the Entry under `ask.key` in `tier`, or None; a failing tier gives None.

    `peek`: it will not be used, so no use is noted.
    """

    tier: Tier
    ask: Ask
    peek: bool = False


class MatchWords(msgspec.Struct, frozen=True):
    """Gives the Matched that `ask.likeness` finds, or None; one that fails gives None."""

    ask: Ask


class Keep(msgspec.Struct, frozen=True):
    tier: Tier
    ask: Ask
    entry: Entry


class CallModel(msgspec.Struct, frozen=True):
    """Gives what `ask.call` returns; its failure is thrown into the flow.

    An Answer in place of the model's own says that it was there after all.
    """

    ask: Ask


class Join(msgspec.Struct, frozen=True):
    """Gives a Seat in the call under way for `ask.key`, or in a new one; None without flights."""

    ask: Ask


class Lead(msgspec.Struct, frozen=True):
    """Gives the Landing of `lead(ask)`, carried out for everybody who follows `seat`."""

    ask: Ask
    seat: Seat


class Follow(msgspec.Struct, frozen=True):
    """Gives the Landing of somebody else's call; waits at most the lease."""

    ask: Ask
    seat: Seat


class Renew(msgspec.Struct, frozen=True):
    """Carry out `lead(ask.renewal(ask))` in the background, unless somebody already does.

    Gives True if only the caller could make that call.
    """

    ask: Ask


Step = Look | MatchWords | Keep | CallModel | Join | Lead | Follow | Renew
T = TypeVar("T")
Flow = Generator[Step, Any, T]
