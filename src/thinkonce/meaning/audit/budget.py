"""Whether a namespace may serve semantic hits, how strictly, and which hits are audited.

Cuts of the score run from strict to loose; a hit's band is the first cut it reaches. `step` is
the loosest cut that is served: bands 0..step. What moves it:

    shadow ----- a step is certified -----> serving ---- a looser step is certified --> serving
      ^                                        |
      |   alarm, `certified` mode              | alarm, `calibrated` mode
      +----------------------------------------+------> tightened: one step stricter, or shadow
                                               |
                                               +------> off, after ALARMS alarms

`calibrated` serves from the first request at the calibration's cut, `certified` only what audits
have earned. Steps are certified in walks from strict to loose, each of which stops at the first
step that does not pass: of one walk P(any step is passed wrongly) <= its eta. There are STARTS of
them beside the strictest, each with its share of eta, since a band may see too little traffic.

Each alarm begins a new term: what was audited in an older one counts for nothing. Another encoder,
verifier or set of cuts is another basis and has a budget of its own.
"""

from __future__ import annotations

from enum import StrEnum
from math import log

import msgspec

from thinkonce.meaning.audit.evidence import Alarm, Stretch, counts, log_certainty, upper_limit
from thinkonce.meaning.audit.misjudgement import Misjudgement
from thinkonce.meaning.verdict.binomial import clopper_pearson

__all__ = ("ALARMS", "Budget", "Draw", "Event", "Mode", "Shown", "Standing")

ALARMS = 3  # then off: a namespace that fails again and again has a cause that cuts do not mend
NEAR_CUT = 4.0  # times the audits in the loosest band that is served
STARTS = 3  # walks that certify, beside the one from the strictest cut
OWN_AUDITS = 0.5  # times 1 / max_error: audits a band needs before it may be served
# (audits of this term as multiples of 1 / max_error, chance of an audit until there).
SCHEDULE = ((0.5, 1.0), (1.0, 0.5), (3.0, 0.2), (10.0, 0.1), (30.0, 0.05))


class Mode(StrEnum):
    CALIBRATED = "calibrated"  # serves at once; the bound is the calibration's
    CERTIFIED = "certified"  # serves what audits have certified


class Standing(StrEnum):
    SHADOW = "shadow"  # looked up and audited, never served
    SERVING = "serving"
    TIGHTENED = "tightened"  # serving, after an alarm
    OFF = "off"  # not even looked up, until someone resets it


class Event(StrEnum):
    """What an audit brought about."""

    CERTIFIED = "certified"  # a step's error is below the budget
    ALARM = "alarm"  # the error among served hits is above it


class Draw(msgspec.Struct, frozen=True):
    """An audit that was decided on: what its result must be weighed with when it comes."""

    term: int
    step: int
    band: int
    rates: tuple[float, ...]


class Shown(msgspec.Struct, frozen=True):
    """Numbers to publish, of the bands served (in shadow: of the strictest that was audited).

    `bound` holds at every moment with chance 1 - eta; `interval` is Clopper and Pearson's and
    holds for a number of audits fixed beforehand, where all were drawn at one rate.
    """

    standing: Standing
    step: int
    certified: bool
    bound: float
    audits: int
    wrong: int
    interval: tuple[float, float]
    mode: Mode = Mode.CALIBRATED
    max_error: float = 0.0


class Budget(msgspec.Struct):
    """The state of one namespace. Not thread-safe: whoever holds it takes turns.

    `max_error` is the budget, `steps` the number of cuts, `first` the step that calibrated mode
    serves at first, `start` the one served whatever is certified (-1: none), `basis` names what
    the evidence rests on.
    """

    max_error: float
    steps: int
    basis: str
    mode: Mode = Mode.CALIBRATED
    first: int = 0
    start: int = 0
    eta: float = 0.05
    least_rate: float = 0.02
    misjudgement: Misjudgement = Misjudgement()
    term: int = 0
    alarms: int = 0
    certified: int = -1  # the loosest step certified in this term
    stretches: list[Stretch] = []
    alarm: Alarm = msgspec.field(default_factory=Alarm)

    def __post_init__(self) -> None:
        if not self.term:
            self.start = self._untried()

    def _untried(self) -> int:
        return self.first if self.mode is Mode.CALIBRATED else -1

    @property
    def step(self) -> int:
        """The loosest step that is served; -1: none."""
        return -1 if self.alarms >= ALARMS else max(self.start, self.certified)

    @property
    def standing(self) -> Standing:
        if self.alarms >= ALARMS:
            return Standing.OFF
        if self.step < 0:
            return Standing.SHADOW
        return Standing.TIGHTENED if self.alarms else Standing.SERVING

    def serves(self, band: int) -> bool:
        return band <= self.step

    # -- which hits are audited ---------------------------------------------------------------

    def rates(self) -> tuple[float, ...]:
        """Chance of an audit by band. Where nothing is served it is 1: the model is asked anyway,
        and judging its answer costs no call."""
        step = self.step
        if step < 0:
            return (1.0,) * self.steps
        usual = self._usual_rate(step)
        near = min(1.0, usual * NEAR_CUT) if step else usual
        return (usual,) * step + (near,) + (1.0,) * (self.steps - step - 1)

    def _usual_rate(self, step: int) -> float:
        audits = sum(right + wrong for _, right, wrong in self._counts(step))
        for until, rate in SCHEDULE:
            if audits < until / self.max_error:
                return max(rate, self.least_rate)
        return self.least_rate

    def draw(self, band: int, dice: float) -> Draw | None:
        """Whether a would-be hit of `band` is audited; `dice` is uniform on 0..1."""
        rates = self.rates()
        return Draw(self.term, self.step, band, rates) if dice < rates[band] else None

    # -- what audits bring about --------------------------------------------------------------

    def audited(self, draw: Draw, is_wrong: bool) -> Event | None:
        """Enter a result. One of an older term is dropped: it tells of what is no more.

        Reports of wrong answers that come outside the drawn audits are no random sample and must
        not be entered.
        """
        if draw.term != self.term or self.standing is Standing.OFF:
            return None
        self._stretch(draw.rates).add(draw.band, is_wrong)
        if draw.band <= draw.step:
            weight = min(draw.rates[: draw.step + 1]) / draw.rates[draw.band]
            self.alarm.see(is_wrong, weight, self.misjudgement.alarm_at(self.max_error))
            if self.alarm.log_capital() >= -log(self.eta):
                self._tighten()
                return Event.ALARM
        return Event.CERTIFIED if self._certify() else None

    def reset(self) -> None:
        """Begin anew, as if there had been no alarm: somebody mended the cause."""
        self._begin(self._untried())
        self.alarms = 0

    def _certify(self) -> bool:
        before = self.certified
        while (step := self._next_certified()) is not None:
            self.certified = step
        return self.certified > before

    def _next_certified(self) -> int | None:
        starts = {0} | {1 + number * (self.steps - 1) // STARTS for number in range(STARTS)}
        starts &= set(range(self.steps))
        sure = log(len(starts) / self.eta)
        delta = self.misjudgement.certify_at(self.max_error)
        for step in sorted({self.certified + 1, *starts}):
            if self.certified < step < self.steps and (
                self._own_audits(step) * self.max_error >= OWN_AUDITS
                and log_certainty(self._counts(step), delta) >= sure
            ):
                return step
        return None

    def _own_audits(self, band: int) -> int:
        """Without any in the band itself, nothing would be known of what a step adds."""
        return sum(stretch.right[band] + stretch.wrong[band] for stretch in self.stretches)

    def _tighten(self) -> None:
        self._begin(self.step - 1 if self.mode is Mode.CALIBRATED else -1)
        self.alarms += 1

    def _begin(self, start: int) -> None:
        """A new term that serves steps up to `start`."""
        self.start, self.certified = start, -1
        self.stretches, self.alarm = [], Alarm()
        self.term += 1

    def _stretch(self, rates: tuple[float, ...]) -> Stretch:
        for stretch in reversed(self.stretches):
            if stretch.rates == rates:
                return stretch
        self.stretches.append(Stretch(rates, [0] * self.steps, [0] * self.steps))
        return self.stretches[-1]

    # -- what is shown ------------------------------------------------------------------------

    def shown(self) -> Shown:
        step = self._shown_step()
        audits = self._counts(step)
        right = sum(right for _, right, _ in audits)
        wrong = sum(wrong for _, _, wrong in audits)
        return Shown(
            self.standing,
            self.step,
            self.certified >= step,
            self.misjudgement.corrected(upper_limit(audits, self.eta)),
            right + wrong,
            wrong,
            clopper_pearson(wrong, right + wrong, self.eta),
            self.mode,
            self.max_error,
        )

    def _shown_step(self) -> int:
        """In shadow the strictest that audits say anything of."""
        if self.step >= 0:
            return self.step
        return next((step for step in range(self.steps) if self._counts(step)), 0)

    def _counts(self, step: int) -> list[tuple[float, int, int]]:
        return counts(self.stretches, step)
