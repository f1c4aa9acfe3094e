"""May this answer be kept? Rules over the gist of an answer, the same for every dialect."""

from __future__ import annotations

import json
from collections.abc import Mapping

import msgspec

from thinkonce.outcome import Reason
from thinkonce.protocols.dialect import Asked
from thinkonce.protocols.reply import Gist

__all__ = ("StoreRules", "refusal")

PROVIDER_TEMPERATURE = 1.0  # what an omitted temperature means to every provider we know


class StoreRules(msgspec.Struct, frozen=True):
    """`max_temperature` None: answers are kept at any. `max_bytes` bounds one answer."""

    max_temperature: float | None = None
    max_bytes: int = 1 << 20


def refusal(
    asked: Asked,
    gist: Gist,
    finish_reasons: Mapping[str, Reason | None],
    rules: StoreRules,
    *,
    so_far: bool = False,
) -> Reason | None:
    """Why the answer must not be kept; None: it may.

    `so_far`: judge a stream before its end mark, when the marks of its last chunk are written.
    """
    if gist.status != 200 or gist.failed:
        return Reason.ERROR
    if gist.oversized or gist.size > rules.max_bytes:
        return Reason.TOO_LARGE
    if not (gist.done or so_far):
        return Reason.ABORTED
    if gist.odd:
        return Reason.UNENCODABLE
    return (
        _bad_end(asked, gist, finish_reasons)
        or _bad_content(asked, gist)
        or _too_warm(asked, rules)
    )


def _bad_end(
    asked: Asked, gist: Gist, finish_reasons: Mapping[str, Reason | None]
) -> Reason | None:
    for finish in gist.finishes:
        reason = finish_reasons.get(finish, Reason.INCOMPLETE) if finish else Reason.INCOMPLETE
        if reason is not None:
            return reason
    return None if len(gist.finishes) == asked.answers else Reason.INCOMPLETE


def _bad_content(asked: Asked, gist: Gist) -> Reason | None:
    if gist.empty:
        return Reason.EMPTY
    if asked.wants_json and not all(map(_is_json, gist.texts)):
        return Reason.INVALID_JSON
    return None


def _too_warm(asked: Asked, rules: StoreRules) -> Reason | None:
    if rules.max_temperature is None:
        return None
    temperature = PROVIDER_TEMPERATURE if asked.temperature is None else asked.temperature
    return Reason.TEMPERATURE if temperature > rules.max_temperature else None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
