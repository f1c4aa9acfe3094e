"""One remembered answer, as every tier holds it.

    created_at          expires_at                  gone_at
        |---- fresh ---------|---- stale, may serve ----|---- forgotten
        wall clock, seconds since the epoch; `inf` = never

`fresh_until`, `forget_at` and `inline_until` are the same instants on this process's monotonic
clock; `localise` sets them when an entry enters a process.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from math import inf
from sys import getsizeof
from typing import Any

import msgspec

from thinkonce.clock import Clock
from thinkonce.likeness import Hint

__all__ = ("LEFT", "PRIORITY_WEIGHT", "Entry", "Form", "Meta", "Priority", "localise", "said_bytes")

Priority = str  # "high" | "medium" | "low" | "pinned"
# Weights of notes on eviction: a factor of four between neighbours. `pinned` is handled apart.
PRIORITY_WEIGHT = {"high": 4.0, "medium": 1.0, "low": 0.25, "pinned": 4.0}
FEW_CHARACTERS = 64  # of names and tags, in what an entry takes anyhow
LEFT = object()  # stands in `Entry.tally` of an entry that has left the memory tier


class Form:
    """How `Entry.payload` holds the answer."""

    PLAIN = 0  # an immutable Python value, handed out as it is
    ENCODED = 1  # bytes of `thinkonce.values.encode`; decoded anew for every caller
    COPIED = 2  # any object; deep-copied for every caller; memory tier only
    REPLY = 3  # bytes of a recorded HTTP answer (`protocols.reply`)
    STREAM = 4  # bytes of `thinkonce.values.encode` of the list of items a generator yielded


class Meta(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What is said about an entry besides its answer; shared by entries where equal.

    `scope` is the function ("module.qualname") or endpoint ("chat/completions") that made it.
    """

    scope: str = ""
    tenant: str = ""
    namespace: str = ""
    model: str = ""
    tags: tuple[str, ...] = ()
    priority: Priority = "medium"
    label: str = ""
    source: str = ""  # upstream pool


@dataclass(slots=True, eq=False)
class Entry:
    """Written once by whoever made the answer, then only noted by eviction policies.

    A plain class with slots, not a msgspec Struct: CPython writes its attributes in half the
    time, and every hit writes two.

    `digest` is the 32-byte shared key (b"" while a memory-only cache never needed it).
    `epoch` is the purge epoch under which the request that made it began.
    `cost` is what making it again would cost: for the gateway's answers US dollars, estimated where
    no price is known (`insight.prices`), for values of functions seconds.
    """

    key: Hashable  # in-process key
    payload: Any
    meta: Meta
    digest: bytes = b""
    form: int = Form.PLAIN
    thaw: Callable[[Any], Any] | None = None  # payload -> what a caller gets; None: as it is
    payload_size: int = 0  # bytes of the answer itself
    size: int = 0  # bytes it takes in the memory tier, which sets it
    cost: float = 0.0
    seconds: float = 0.0  # time the model took
    tokens: int = 0  # tokens a hit saves
    created_at: float = 0.0
    expires_at: float = inf
    gone_at: float = inf
    stale_while_revalidate: float = 0.0  # seconds past expires_at
    stale_if_error: float = 0.0  # seconds past expires_at
    epoch: int = 0
    request: bytes = b""  # what was asked, packed (`request.kept`); b"" where that is not kept
    hint: Hint | None = None  # what questions in other words are compared with
    # -- local to one process, never stored ------------------------------------------
    fresh_until: float = inf
    forget_at: float = inf
    inline_until: float = 0.0  # a probe may answer before this monotonic instant
    weight: float = 1.0  # of the priority
    hits: int = 0  # noted by eviction policies: frequency, or a bit
    floor: float = 0.0  # noted by eviction policies: the cost policy's L at the last hit
    place: Any = None  # owned by the eviction policy that holds the entry
    tally: Any = None  # what counts the hits that the generated probe left here; see `tally`
    told: int = 0  # how many of `hits` are counted already


def said_bytes(tags: tuple[str, ...], *names: str) -> int:
    """Bytes that an entry's tags and names take in memory: whoever asks chooses their length."""
    if sum(map(len, names)) + sum(map(len, tags)) <= FEW_CHARACTERS:
        return 0
    return getsizeof(tags) + sum(map(getsizeof, names)) + sum(map(getsizeof, tags))


def localise(entry: Entry, clock: Clock) -> None:
    """Translate the wall instants of `entry` to this process's monotonic clock."""
    shift = clock.monotonic() - clock.wall()
    entry.fresh_until = entry.expires_at + shift
    entry.forget_at = entry.gone_at + shift
    entry.weight = PRIORITY_WEIGHT[entry.meta.priority]
