"""What the inputs of one request come to together: what is said of them, and what they saved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf

from thinkonce.clock import Clock
from thinkonce.engine.marks import batch_headers
from thinkonce.insight.savings import Saved
from thinkonce.outcome import Match, Outcome, Reason
from thinkonce.protocols.annotation import Annotation
from thinkonce.steps import Answer
from thinkonce.upstream.failure import Header

__all__ = ("BatchSum", "summed")


@dataclass(slots=True, kw_only=True)
class BatchSum:
    """What all items together come to. Seconds; tokens, dollars and seconds are those saved."""

    outcome: Outcome
    reason: Reason | None
    items: int
    hits: int
    age: float
    left: float
    tier: str | None
    refused: Reason | None
    tokens: int
    usd: float | None
    seconds: float
    saved: Saved

    @property
    def is_hit(self) -> bool:
        return self.outcome in (Outcome.HIT, Outcome.STALE)

    def headers(self, key: str) -> list[Header]:
        outcome, reason = self.outcome, self.reason
        headers = batch_headers(outcome, reason, key, self.age, self.left, self.tier)
        if self.hits and not self.is_hit:  # RFC 9211, 2.2: some of it came from the cache
            partial = (b"cache-status", b"thinkonce; fwd=partial")
            headers = [partial if each[0] == b"cache-status" else each for each in headers]
        if self.refused is not None:
            headers.append((b"x-cache-not-stored", self.refused.value.encode()))
        return headers

    def annotation(self, key: str, label: str) -> Annotation:
        hit = self.is_hit
        return Annotation(
            status=self.outcome,
            match=Match.EXACT if hit else None,
            tier=self.tier if hit else None,
            key=key or None,
            cache_key=label or None,
            age=round(max(self.age, 0.0), 3) if hit else None,
            ttl=round(self.left, 3) if hit and self.left != inf else None,
            saved_tokens=self.tokens or None,
            saved_cost=self.usd,
            saved_ms=round(self.seconds * 1000, 3) if self.tokens else None,
            stored=None if hit else self.refused is None,
            not_stored=self.refused,
            items=self.items,
            items_hit=self.hits,
        )


_SAVED = {
    Outcome.HIT: Saved.HIT,
    Outcome.STALE: Saved.STALE,
    Outcome.COALESCED: Saved.COALESCED,
}
# What says most about a batch goes first: one item that was asked for makes it a miss.
_RANK = (
    Outcome.BYPASS,
    Outcome.REFRESH,
    Outcome.MISS,
    Outcome.COALESCED,
    Outcome.STALE,
    Outcome.HIT,
)


def summed(
    found: Sequence[Answer], clock: Clock, price: Callable[[int], float | None], waited: float
) -> BatchSum:
    """`price`: of so many tokens; `waited`: seconds that the request took.

    A call that was made for one input took its time, whatever the others saved.
    """
    kept = [each.entry for each in found if each.tier is not None and each.entry is not None]
    saved = [each.entry for each in found if not each.value_is_own and each.entry is not None]
    worst = min(found, key=lambda each: _RANK.index(each.outcome))
    tiers = {each.tier for each in found if each.tier is not None}
    tokens = sum(entry.tokens for entry in saved)
    kind, seconds = Saved.PARTIAL, 0.0
    if len(saved) == len(found):
        kind = _SAVED.get(worst.outcome, Saved.PARTIAL)
        seconds = max(entry.seconds for entry in saved)
        if worst.outcome is Outcome.COALESCED:
            seconds = max(seconds - waited, 0.0)
    return BatchSum(
        outcome=worst.outcome,
        reason=worst.reason,
        items=len(found),
        hits=len(kept),
        age=max((clock.wall() - entry.created_at for entry in kept), default=0.0),
        left=min((entry.fresh_until - clock.monotonic() for entry in kept), default=inf),
        tier=tiers.pop() if len(tiers) == 1 else None,
        refused=next((each.refused for each in found if each.refused is not None), None),
        tokens=tokens,
        usd=price(tokens),
        seconds=seconds,
        saved=kind,
    )
