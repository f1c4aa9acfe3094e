"""How often questions were compared, and what came of it."""

from __future__ import annotations

import threading
from collections import Counter

from thinkonce.host.fork import free_after_fork, on_fork
from thinkonce.meaning.compared import Compared
from thinkonce.meaning.finding import Finding
from thinkonce.meaning.text.eligible import Ineligible

__all__ = ("CROWDED", "Counts")

CROWDED = "crowded"


class Counts:
    """Thread-safe."""

    def __init__(self) -> None:
        self._found, self._missed = Counter[str](), Counter[str]()
        self._vetoes, self._passed_over = Counter[str](), Counter[str]()
        self._lock = threading.Lock()
        on_fork(self._in_child)

    def passed_over(self, why: Ineligible) -> None:
        with self._lock:
            self._passed_over[why.value] += 1

    def crowded(self) -> None:
        """A question that is not compared with later ones, see `Stored.crowds`."""
        with self._lock:
            self._passed_over[CROWDED] += 1

    def found(self, finding: Finding) -> None:
        judged = () if finding.ruling is None else finding.ruling.judged
        vetoes = {veto.value for each in judged for veto in each.vetoes}
        with self._lock:
            if finding.matched is not None:
                self._found[finding.matched.match.value] += 1
            else:
                self._missed[str(finding.why)] += 1
            self._vetoes.update(vetoes)

    def told(self) -> Compared:
        with self._lock:
            return Compared(
                dict(self._found),
                dict(self._missed),
                dict(self._vetoes),
                dict(self._passed_over),
            )

    def _in_child(self) -> None:
        free_after_fork(self._lock)
