"""The numbers of comparing questions, as `stats` shows them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from thinkonce.meaning.audit.audits import Tallied
from thinkonce.meaning.diversity import Crowded

if TYPE_CHECKING:
    from thinkonce.meaning.matching import Meaning

__all__ = ("told_of",)

MOST_SHOWN = 100  # accounts: a tenant has one for each namespace and language


def told_of(meaning: Meaning) -> dict[str, Any]:
    """Of this process, but for audits, which lie in the store."""
    numbers, embeddings = meaning.audits.numbers(), meaning.embeddings
    verification = meaning.verification
    return {
        "compared": msgspec.structs.asdict(meaning.counts.told()),
        "embedder": embeddings.embedder.name,
        "embedder_late": embeddings.late,
        "embedder_failures": embeddings.failures,
        "verifier": None if verification is None else verification.verifier.name,
        "verifier_late": 0 if verification is None else verification.late,
        "verifier_failures": 0 if verification is None else verification.failures,
        "audits": {
            "compared": numbers.compared,
            "undecided": numbers.undecided,
            "left_out": numbers.left_out,
            "lost": numbers.lost,
        },
        "agreement": {
            "vouched": meaning.audits.agreement.vouched,
            "unlike": meaning.audits.agreement.unlike,
        },
        "accounts": len(numbers.accounts),
        "namespaces": [_of_account(each) for each in _worst_first(numbers.accounts)[:MOST_SHOWN]],
        "crowded": [_of_entry(each) for each in meaning.diversity.crowded()],
        "unanswered": {
            name: [msgspec.structs.asdict(group) for group in groups]
            for name in meaning.unanswered.namespaces()
            if (groups := meaning.unanswered.top(name))
        },
    }


def _worst_first(accounts: Iterable[Tallied]) -> list[Tallied]:
    return sorted(
        accounts,
        key=lambda one: (-one.alarms, -one.shown.wrong, -one.shown.audits, one.name),
    )


def _of_account(found: Tallied) -> dict[str, Any]:
    shown = found.shown
    return {
        "tenant": found.tenant,
        "namespace": found.namespace,
        "language": found.language,
        "standing": shown.standing.value,
        "mode": shown.mode.value,
        "max_error": shown.max_error,
        "serves_band": shown.step,
        "bands": found.steps,
        "certified": shown.certified,
        "error_bound": shown.bound,
        "audits": shown.audits,
        "wrong": shown.wrong,
        "alarms": found.alarms,
    }


def _of_entry(found: Crowded) -> dict[str, Any]:
    return {
        "namespace": found.namespace,
        "key": found.digest.hex(),
        "questions": found.questions,
        "share": round(found.share, 4),
    }
