"""What a verifier says of pairs, in time or not at all (see `in_time`).

A pair that is not judged in time is no match; its request goes on to the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from thinkonce.clock import SYSTEM, Clock
from thinkonce.meaning.embedders.embedder import embeddable
from thinkonce.meaning.in_time import InTime, Maker, Wanted
from thinkonce.meaning.verdict.verifier import Verifier, VerifierError

__all__ = ("Verification",)

MOST_WAITING = 64  # pairs in the queue; more could not be judged in time
REMEMBERED = 4096  # pairs: questions of hits come again

Pair = tuple[str, str, str]  # whose, asked, stored; whose: see `embeddings`


class Verification(InTime[Pair, float | None]):
    """See `InTime`. `timeout` in seconds, None: the verifier's patience."""

    def __init__(
        self, verifier: Verifier, *, timeout: float | None = None, clock: Clock = SYSTEM
    ) -> None:
        timeout = verifier.patience if timeout is None else timeout
        maker = Maker("verifier", verifier.name, VerifierError, verifier.concurrency)
        super().__init__(maker, timeout, MOST_WAITING, clock)
        self.verifier = verifier

    def logit(
        self, asked: str, stored: str, timeout: float | None = None, whose: str = ""
    ) -> float | None:
        """Finite. Blocks for `timeout` seconds at most, None: the usual. None if there is none."""
        return self._get((whose, embeddable(asked), embeddable(stored)), timeout)

    def close(self) -> None:
        super().close()
        self.verifier.close()

    def _make(self, batch: Sequence[Wanted[Pair, float | None]]) -> None:
        for wanted in batch:
            if self._clock.monotonic() > wanted.until:  # nobody waits for it any more
                self._fail([wanted], VerifierError("too many pairs are waiting"))
            else:
                self._judge(wanted)

    def _judge(self, wanted: Wanted[Pair, float | None]) -> None:
        try:
            found = _finite(self.verifier.logit(*wanted.key[1:]))
        except Exception as error:
            self._circuit.failed(error)
            self._fail([wanted], error)
            return
        self._circuit.succeeded()
        self._made(wanted, found)

    def _bound(self, key: Pair, value: float | None) -> None:
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)


def _finite(found: float | None) -> float | None:
    if found is None or isfinite(found):
        return found
    raise VerifierError(f"a judgement of {found}")
