"""What audits have taught of one namespace, as it is written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from thinkonce.kv.reuse.meter import Audit

__all__ = ("Climbed", "State", "Taught", "Weighed")


class Climbed(msgspec.Struct, frozen=True, tag="ladder"):
    """Where a namespace stands on a ladder that begins at `first`; see `ladder.py`."""

    first: str
    setting: str
    clean: int
    wanted: int
    alarms: int


class Weighed(msgspec.Struct, frozen=True, tag="auto"):
    """What `auto` knows of a namespace; see `auto.py`."""

    answers: int
    audits: int
    served: str
    trusted: tuple[str, ...]
    barred: dict[str, int]
    patience: dict[str, int]


State = Climbed | Weighed


class Taught(msgspec.Struct, frozen=True):
    """Of one namespace and method: audits by setting, oldest first, of each the mean KL in nats,
    the tokens that agreed, and of how many. `careful`: answers for which audits still may cost
    more.
    """

    audits: dict[str, list[tuple[float, int, int]]]
    state: State | None = None
    careful: int = 0

    @classmethod
    def of(cls, audits: Mapping[str, Sequence[Audit]], state: State | None, careful: int) -> Taught:
        rows = {
            setting: [(round(each.divergence, 6), each.agreed, each.tokens) for each in some]
            for setting, some in audits.items()
        }
        return cls(rows, state, careful)

    def each(self, setting: str) -> list[Audit]:
        return [Audit(*row) for row in self.audits[setting]]
