"""What was chosen and why: the one vocabulary of results, logs, metrics, headers and docs."""

from __future__ import annotations

from enum import StrEnum

__all__ = ("Match", "Outcome", "Reason")


class Outcome(StrEnum):
    """What a caller got. The header `x-cache` shows it in capitals."""

    HIT = "hit"  # a live entry answered
    MISS = "miss"  # the model was asked
    STALE = "stale"  # an expired entry answered, as its rules allow
    BYPASS = "bypass"  # the cache was neither read nor written
    REFRESH = "refresh"  # the caller asked for a new answer; it was stored
    COALESCED = "coalesced"  # another caller's call under way answered


class Match(StrEnum):
    """How a hit was found."""

    EXACT = "exact"  # the very request
    LEXICAL = "lexical"  # the same but for a question in the same words, dressed otherwise
    SEMANTIC = "semantic"  # the same but for a question in other words


class Reason(StrEnum):
    """Why there was no hit, or why an answer was not stored. A closed list."""

    # Why a look-up missed.
    NEW = "new"  # nothing was ever stored under this key, as far as is known
    EXPIRED = "expired"  # an entry was there, past its life
    TOO_OLD = "too-old"  # live, but older than the caller's max-age or min-fresh allow
    REFRESHED = "refresh"  # the caller told us not to read
    SHAPE = "shape"  # what is stored cannot be turned into the shape asked for
    PURGED = "purged"  # removed by a purge
    EVICTED = "evicted"  # removed to make room
    TIER_ERROR = "tier-error"  # a tier could not be read
    # Why the cache was not asked at all.
    DISABLED = "disabled"  # switched off, by the caller or by configuration
    UNKEYABLE = "unkeyable"  # no canonical form: two different requests could look alike
    STATEFUL = "stateful"  # the answer depends on, or changes, state elsewhere
    ENDPOINT = "endpoint"  # this path is never cached
    TOO_LARGE = "too-large"  # the request or the answer exceeds the size that is kept
    CONDITION = "condition"  # the `condition=` of the decorator refused the value
    # Why an answer was not stored.
    NO_STORE = "no-store"  # the caller forbade it
    TTL_ZERO = "ttl-zero"  # a life of zero seconds
    LENGTH = "length"  # cut off at the token limit
    CONTENT_FILTER = "content-filter"  # withheld by the provider
    ERROR = "error"  # not a successful answer
    ABORTED = "aborted"  # the stream ended before its end mark
    EMPTY = "empty"  # no content and no tool call
    INVALID_JSON = "invalid-json"  # JSON was asked for and the text is not JSON
    INCOMPLETE = "incomplete"  # a choice has no acceptable finish reason
    TEMPERATURE = "temperature"  # above the configured max_temperature
    QUOTA = "quota"  # the client's bytes are used up
    UNENCODABLE = "unencodable"  # the value cannot be kept without loss
    CHANGED = "changed"  # an argument was changed while the call ran: it answers something else
