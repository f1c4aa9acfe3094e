"""What is told of fidelity: of one client's own traffic in explanations, of all in statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Any

from thinkonce.kv.prefix.causes import Fidelity
from thinkonce.kv.reuse.ladder import Effort
from thinkonce.kv.reuse.meter import Bounds, Standing

__all__ = ("bounds_told", "fidelity_of", "in_force", "measures")

_ERRORS = 1.96  # standard errors, of the interval of a mean KL


def fidelity_of(
    setting: str, steps: Sequence[str], standing: Standing | None, bounds: Bounds
) -> Fidelity:
    """`standing` None: of what is exact, and needs no audit."""
    measured = measures(standing) if standing is not None and standing.audits else {}
    verdict = "holds" if standing is None else standing.verdict.value
    return Fidelity(
        setting,
        tuple(steps),
        verdict,
        **measured,
        bound_agreement=bounds.agreement,
        bound_kl=bounds.divergence,
    )


def measures(standing: Standing) -> dict[str, Any]:
    """Means of audits with their 95 % intervals, rounded; KL in nats."""
    high = standing.divergence + _ERRORS * standing.error
    low = max(0.0, standing.divergence - _ERRORS * standing.error)
    return {
        "audits": standing.audits,
        "agreement": round(standing.agreement, 4),
        "agreement_low": round(standing.lower, 4),
        "agreement_high": round(standing.upper, 4),
        "kl": round(standing.divergence, 5),
        "kl_low": round(low, 5),
        "kl_high": round(high, 5) if isfinite(high) else None,
    }


def bounds_told(bounds: Bounds) -> dict[str, float]:
    return {"agreement": bounds.agreement, "kl": bounds.divergence}


def in_force(efforts: Iterable[Effort]) -> dict[str, int]:
    """Of how many tenants' namespaces each setting was served last, by all methods together."""
    found: Counter[str] = Counter()
    for effort in efforts:
        told: Mapping[str, int] = effort.in_force()
        found.update(told)
    return dict(found)
