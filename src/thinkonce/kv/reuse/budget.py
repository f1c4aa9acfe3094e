"""What audits may cost: a share of what approximate reuse saved.

Computing the truth costs what reuse had saved, so it is done of a sample: a fifth of the saved
compute while little is known (the first 100 hits, 100 hits after an alarm, and after 100 answers
in a row that were exact), a fiftieth then. A period pays for itself: what was put by while more was
given is not spent later, and what saved nothing gives nothing once a fiftieth is the rule.
"""

from __future__ import annotations

__all__ = ("AuditBudget",)

CAREFUL_HITS = 100
_MOST_TRIALS = 100  # in a row: what is known then fits nothing that is asked
_CAREFUL_SHARE, _STEADY_SHARE = 0.20, 0.02
# What was not spent is there later, as far as it pays for so many audits at once.
_MOST_AUDITS = 4.0


class AuditBudget:
    """Counts in any one unit of compute: tokens, or seconds. Used by one thread."""

    def __init__(self, careful: int = CAREFUL_HITS) -> None:
        """`careful`: answers that get the larger share."""
        self.saved = self.spent = 0.0
        self._allowance, self._careful = 0.0, careful
        self._dearest = 0.0
        self._trials = 0

    @property
    def is_careful(self) -> bool:
        """Whether the larger share is given: little is known, or something was wrong."""
        return self._careful > 0

    @property
    def careful(self) -> int:
        """Answers that are still to get it."""
        return self._careful

    def hit(self, saved: float) -> None:
        """An answer for which so much was not computed."""
        self._trials = 0
        self.saved += saved
        if not self.is_careful:
            self._allow(_STEADY_SHARE * saved)
            return
        self._allow(_CAREFUL_SHARE * saved)
        self._careful -= 1
        if not self.is_careful:
            self._allowance = min(0.0, self._allowance)

    def _allow(self, more: float) -> None:
        self._allowance += more
        if self._dearest:
            self._allowance = min(self._allowance, _MOST_AUDITS * self._dearest)

    def trial(self, saved: float) -> None:
        """An exact answer, for which so much might not have been computed: what is on trial saves
        nothing yet, and what it may cost is the larger share of what it would have saved, while
        that share is given.
        """
        self._trials += 1
        if self._trials >= _MOST_TRIALS and not self.is_careful:
            self._careful = CAREFUL_HITS
        if self.is_careful:
            self._allow(_CAREFUL_SHARE * max(0.0, saved))

    def allows(self, cost: float) -> bool:
        """Whether an audit of this cost may be begun now."""
        self._dearest = max(self._dearest, cost)
        return self._allowance >= cost

    def audited(self, cost: float) -> None:
        """What an audit did cost, finished or not."""
        self.spent += cost
        self._allowance -= cost

    def alarm(self) -> None:
        """A setting left the bounds: look closer for a while."""
        self._careful = CAREFUL_HITS
