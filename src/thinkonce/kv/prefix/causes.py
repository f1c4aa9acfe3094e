"""Why a prompt, or a part of it, is read again: the causes, and what is told with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from thinkonce.kv.prefix.attended import Attended

__all__ = (
    *("Cause", "Chunk", "Costs", "Departure", "Explained", "Fidelity", "Gone", "GoneBy"),
    "Missing",
    "WhyExact",
)

GoneBy = Literal["evicted", "expired", "purged", "no_room"]
Cause = Literal[
    GoneBy,
    "bypass",
    "too_short",
    "tail_not_stored",
    "never_seen",
    "slower_than_recompute",
    "load_error",
    "content",
    "tokenizer_boundary",
    "salt",
    "fingerprint",
    "other_tenant",
]
WhyExact = Literal[
    "not_worth", "known_exactly", "too_short", "not_relocatable", "no_room", "not_faithful"
]
"""Why a prompt with marked parts was read exactly all the same."""


class Gone(NamedTuple):
    """`at`: seconds of the clock of whoever remembers it. `policy`: what chose it, if one did."""

    cause: GoneBy
    at: float
    policy: str = ""


@dataclass(frozen=True, slots=True)
class Departure:
    """Where a prompt leaves the nearest one that is known of the same owner.

    `token` is the place of the first token that differs; `known` are the other prompt's tokens
    from there on, as far as they are remembered. `in_tail`: it lies in what that prompt ended
    with, less than a block, which is never kept.
    """

    token: int
    known: tuple[int, ...]
    in_tail: bool = False


@dataclass(frozen=True, slots=True)
class Missing:
    """Why a block is missing. `ago`: seconds since it went. `fields`: what keeps it apart."""

    cause: Cause
    ago: float | None = None
    policy: str = ""
    fields: tuple[str, ...] = ()
    departure: Departure | None = None


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds: of finding out what is known, of loading it, and of computing the rest."""

    lookup: float = 0.0
    load: float = 0.0
    compute: float = 0.0


@dataclass(frozen=True, slots=True)
class Chunk:
    """A marked part that was reused elsewhere: `tokens` from `start` on, encoded from position
    `was` on, of which `memory_tokens` and `disk_tokens` were found; the others were encoded anew.
    `recomputed` of them were computed again where they stand. `cause`: why not all were found.
    """

    document: str
    start: int
    tokens: int
    was: int
    memory_tokens: int
    disk_tokens: int
    recomputed: int
    cause: Cause | None = None


@dataclass(frozen=True, slots=True)
class Fidelity:
    """What audits of this traffic say of the `setting` in force, one of the method's `steps`.

    `audits` of them count; without any the measures are None. `agreement` and `kl` (nats) are
    means with their 95 % intervals, of a KL measured once without an upper end. `verdict`: "holds",
    "fails" or "open", against the `bound_...` that they have to keep.
    """

    setting: str
    steps: tuple[str, ...] = ()
    verdict: str = "open"
    audits: int = 0
    agreement: float | None = None
    agreement_low: float | None = None
    agreement_high: float | None = None
    kl: float | None = None
    kl_low: float | None = None
    kl_high: float | None = None
    bound_agreement: float = 0.0
    bound_kl: float = 0.0


@dataclass(frozen=True, slots=True)
class Explained:
    """What of `prompt_tokens` was loaded, and why the first block that was not is missing.

    `missed_tokens` are those of full blocks that could have been loaded, had they been there.
    `method`: how the prompt was read, with its setting; `chunks`: its parts that were reused
    elsewhere. `why_exact`: where marked parts were not. `fidelity`: what is measured of the
    method. `attended`: where an answer does not attend to all of the prompt.
    """

    prompt_tokens: int
    memory_tokens: int
    disk_tokens: int
    missing: Missing
    missed_tokens: int = 0
    costs: Costs = Costs()
    method: str = "exact"
    chunks: tuple[Chunk, ...] = ()
    why_exact: WhyExact | None = None
    fidelity: Fidelity | None = None
    attended: Attended | None = None
