"""How long an answer lives, and what may be done with it at each moment of that life.

    created       expires - early window        expires            + stale-*          gone
       |------------ fresh ------|--- maybe early ---|--- stale, if allowed ---|--- kept ---|

Early refresh is XFetch (Vattani, Chierichetti, Lowenstein: "Optimal Probabilistic Cache Stampede
Prevention", VLDB 2015): refresh when now - delta * beta * ln(U) >= expiry, delta being the time
the model took. Stale rules are RFC 5861. Request directives are RFC 9111, section 5.2.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from math import inf, log

from thinkonce.entry import Entry, Priority
from thinkonce.errors import ConfigError
from thinkonce.outcome import Reason
from thinkonce.request.controls import Controls
from thinkonce.ttl_classes import TTL_CLASSES, TtlClass
from thinkonce.units import parse_seconds

__all__ = (
    "Life",
    "Rules",
    "Verdict",
    "inline_until",
    "is_fresh_for",
    "judge",
    "life_of",
)


# Beyond this many mean earlinesses before expiry, XFetch fires with p < e**-10 = 5e-5.
EARLY_WINDOW = 10.0


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for every answer of one cache. Seconds; `ttl` inf means no expiry.

    `jitter` shortens each life by up to that share, so that answers stored together do not
    expire together; only downwards, so that the promised age holds. `early_refresh` is XFetch's
    beta, 0 for off. `retention` keeps expired answers so that stale ones exist. `lease` is the
    longest a follower waits for another caller's answer before it asks the model itself.
    """

    ttl: float = inf
    max_age: float = inf
    jitter: float = 0.1
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0
    retention: float = 0.0
    early_refresh: float = 1.0
    lease: float = 600.0
    ttl_classes: Mapping[str, TtlClass] = field(default_factory=lambda: TTL_CLASSES)

    def __post_init__(self) -> None:
        if not 0 <= self.jitter <= 1:
            raise ConfigError("jitter", self.jitter, "a share between 0 and 1")
        if self.early_refresh < 0:
            raise ConfigError("early_refresh", self.early_refresh, "a factor >= 0; 0 is off")

    def ttl_class(self, name: str) -> TtlClass:
        try:
            return self.ttl_classes[name]
        except KeyError:
            known = " | ".join(sorted(self.ttl_classes))
            raise ConfigError("ttl", name, f"seconds, 5m, 1h, 24h, or a class: {known}") from None

    def parse_ttl(self, ttl: float | str | None) -> tuple[float, Priority | None]:
        """Seconds, and the priority a class implies. None means no expiry."""
        if ttl is None:
            return inf, None
        if isinstance(ttl, str) and ttl[:1].isalpha():
            named = self.ttl_class(ttl)
            return named.seconds, named.priority
        return parse_seconds(ttl, "ttl"), None


@dataclass(frozen=True, slots=True)
class Life:
    """The lifetimes of one answer in wall-clock seconds."""

    expires_at: float
    gone_at: float
    stale_while_revalidate: float
    stale_if_error: float


def life_of(controls: Controls, rules: Rules, now: float, chance: Callable[[], float]) -> Life:
    """The life of an answer made at wall time `now`. `chance` returns uniform [0, 1)."""
    ttl = min(_ttl_of(controls, rules), rules.max_age)
    if controls.priority != "pinned" and not controls.preload:
        ttl *= 1 - chance() * rules.jitter
    while_revalidate = _first(controls.stale_while_revalidate, rules.stale_while_revalidate)
    if_error = _first(controls.stale_if_error, rules.stale_if_error)
    expires_at = now + ttl
    kept = max(rules.retention, while_revalidate, if_error)
    gone_at = min(expires_at + kept, now + rules.max_age)
    return Life(expires_at, gone_at, while_revalidate, if_error)


def _ttl_of(controls: Controls, rules: Rules) -> float:
    if controls.ttl is not None:
        return controls.ttl
    return rules.ttl_class(controls.ttl_class).seconds if controls.ttl_class else rules.ttl


class Verdict(Enum):
    """What an entry that was found is good for."""

    FRESH = "fresh"
    EARLY = "early"  # fresh, but this caller should renew it in the background
    STALE = "stale"  # expired; may answer while it is renewed in the background
    LAST_RESORT = "last-resort"  # expired; may answer only if the model fails
    USELESS = "useless"


def judge(
    entry: Entry, controls: Controls, rules: Rules, now: tuple[float, float], chance: float
) -> tuple[Verdict, Reason | None]:
    """What `entry` is good for at `now` = (wall, monotonic), and why it is not fresh.

    `chance` is uniform in (0, 1].
    """
    wall, monotonic = now
    left = entry.fresh_until - monotonic
    if left > 0:
        if _too_old(entry, controls, wall, left):
            return Verdict.LAST_RESORT, Reason.TOO_OLD
        early = _early(entry, rules, left, chance)
        return (Verdict.EARLY if early else Verdict.FRESH), None
    return _judge_stale(entry, controls, wall, -left), Reason.EXPIRED


def _judge_stale(entry: Entry, controls: Controls, wall: float, late: float) -> Verdict:
    if controls.max_age is not None and wall - entry.created_at > controls.max_age:
        return Verdict.USELESS
    accepted = entry.stale_while_revalidate if controls.max_stale is None else controls.max_stale
    if late < accepted:
        return Verdict.STALE
    if_error = _first(controls.stale_if_error, entry.stale_if_error)
    return Verdict.LAST_RESORT if late < if_error else Verdict.USELESS


def _too_old(entry: Entry, controls: Controls, wall: float, left: float) -> bool:
    if controls.max_age is not None and wall - entry.created_at > controls.max_age:
        return True
    return controls.min_fresh is not None and left < controls.min_fresh


def _early(entry: Entry, rules: Rules, left: float, chance: float) -> bool:
    # Asked for twice at least: when it was made, and now. So a renewal is no waste on answers
    # that nobody wants again, whether the policy counts hits or not.
    if not rules.early_refresh or left == inf:
        return False
    return -entry.seconds * rules.early_refresh * log(chance) >= left


def is_fresh_for(entry: Entry, controls: Controls, wall: float) -> bool:
    """Whether `judge` would find `entry`, which may not be of this process, fresh at `wall`."""
    left = entry.expires_at - wall
    return left > 0 and not _too_old(entry, controls, wall, left)


def inline_until(entry: Entry, rules: Rules) -> float:
    """Monotonic instant before which a probe may answer `entry` without asking the flow."""
    return entry.fresh_until - EARLY_WINDOW * rules.early_refresh * entry.seconds


def _first(value: float | None, default: float) -> float:
    return default if value is None else value
