"""What the audits' mathematics promises, simulated: certificates, alarms, limits, learning.

    python benchmarks/semantic/audits.py

No data is needed: errors are drawn at known rates, so every promise can be checked against the
truth. One look after every audit.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from math import log
from pathlib import Path
from statistics import median
from time import process_time

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from record import Goal, Table, record

from thinkonce.meaning.audit.budget import Budget, Event, Mode
from thinkonce.meaning.audit.evidence import (
    ALARM_BETS,
    CERTIFY_BETS,
    Alarm,
    upper_limit,
)
from thinkonce.meaning.verdict.binomial import chance_of_at_most
from thinkonce.meaning.verdict.learning import SHIPPED, History, chance, posterior

SEED, ETA = 1, 0.05
CLAIM = "What is certified is so at whatever moment one looks; a worse error raises an alarm."
Cells = list[list[str | float | int | None]]


def wrongs(rng: np.random.Generator, error: float, runs: int, audits: int) -> npt.NDArray[np.int64]:
    """Wrong ones among the first n audits, by run and n."""
    return np.cumsum(rng.random((runs, audits)) < error, axis=1)


def certified_at(
    wrong: npt.NDArray[np.int64], delta: float, eta: float = ETA
) -> npt.NDArray[np.int64]:
    """By run, the number of audits after which the bet is won; 0 where it never is."""
    right = np.arange(1, wrong.shape[1] + 1) - wrong
    capital = np.full(wrong.shape, -np.inf)
    for bet in CERTIFY_BETS:
        one = right * np.log1p(bet * delta / (1 - delta)) + wrong * np.log1p(-bet)
        capital = np.logaddexp(capital, one)
    won = capital - log(len(CERTIFY_BETS)) >= -log(eta)
    return np.where(won.any(axis=1), won.argmax(axis=1) + 1, 0)


def false_certificates(rng: np.random.Generator, runs: int) -> Table:
    lines: Cells = []
    for delta in (0.01, 0.02, 0.05):
        wrong = wrongs(rng, delta, runs, 3000)
        bound = np.array(_least_wrong(3000, delta))
        naive = float((wrong < bound).any(axis=1).mean())
        lines.append([f"{delta:.0%}", float((certified_at(wrong, delta) > 0).mean()), naive])
    columns = ["budget = true error", "certified", "Clopper and Pearson after every audit"]
    return Table("Runs certified wrongly within 3,000 audits (nominal 5 %)", columns, lines)


def _least_wrong(audits: int, delta: float) -> list[int]:
    """By number of audits: Clopper and Pearson's limit lies above `delta` from so many on."""
    found, wrong = [], 0
    for count in range(1, audits + 1):
        while chance_of_at_most(wrong, count, delta) <= ETA:
            wrong += 1
        found.append(wrong)
    return found


def certificates(rng: np.random.Generator, runs: int) -> Table:
    lines: Cells = []
    for delta in (0.01, 0.02, 0.05):
        row: list[str | float | int | None] = [f"{delta:.0%}"]
        for error in (0.0, delta / 4, delta / 2):
            found = certified_at(wrongs(rng, error, runs, int(120 / delta)), delta)
            row.append(float(np.median(np.where(found > 0, found, 10**9))))
        lines.append(row)
    columns = ["budget", "no error", "a quarter of it", "half of it"]
    return Table("Median audits until certified, by true error", columns, lines)


def alarms(rng: np.random.Generator, runs: int) -> Table:
    lines: Cells = []
    for error in (0.04, 0.06, 0.1, 0.2):
        row: list[str | float | int | None] = [f"{error:.0%}"]
        for before in (0, 1000):
            row.append(median(_until_alarm(rng, error, before) for _ in range(runs)))
        row.append(median(_plain_alarm(rng, error, 1000) for _ in range(runs)))
        lines.append(row)
    columns = [
        "true error, budget 2 %",
        "from the start",
        "after 1,000 good",
        "plain bet, after 1,000",
    ]
    return Table("Median audits until the alarm", columns, lines)


def _until_alarm(rng: np.random.Generator, error: float, before: int, limit: int = 4000) -> int:
    alarm = Alarm()
    for _ in range(before):
        alarm.see(False, 1.0, 0.02)
    for seen in range(1, limit):
        alarm.see(bool(rng.random() < error), 1.0, 0.02)
        if alarm.log_capital() >= -log(ETA):
            return seen
    return limit


def _plain_alarm(rng: np.random.Generator, error: float, before: int, limit: int = 4000) -> int:
    """The same bets, all laid out at the start."""
    bets = np.array(ALARM_BETS)
    capital = before * np.log1p(-bets)
    for seen in range(1, limit):
        capital = capital + np.log1p(bets * (49.0 if rng.random() < error else -1.0))
        if np.logaddexp.reduce(capital) - log(len(bets)) >= -log(ETA):
            return seen
    return limit


def limits(rng: np.random.Generator, runs: int) -> Table:
    lines: Cells = []
    for error in (0.005, 0.02, 0.1):
        missed, widths = 0, []
        for wrong in wrongs(rng, error, runs, 1500):
            looks = range(49, 1500, 50)
            found = [upper_limit([(1.0, n + 1 - int(wrong[n]), int(wrong[n]))], ETA) for n in looks]
            missed += min(found) < error
            widths.append(found[-1])
        lines.append([f"{error:.1%}", missed / runs, median(widths)])
    columns = ["true error", "runs it is ever missed in", "median limit after 1,500"]
    return Table("The upper limit that holds at every moment (nominal 5 % missed)", columns, lines)


def states(rng: np.random.Generator, runs: int) -> Table:
    """Whole budgets at the rates they ask for: five bands, errors rising from band to band."""
    lines: Cells = []
    for name, errors in {
        "all at the budget": (0.03, 0.03, 0.03, 0.03, 0.03),
        "good, then bad": (0.002, 0.005, 0.01, 0.05, 0.3),
        "all good": (0.002, 0.002, 0.002, 0.002, 0.002),
    }.items():
        above, steps, alarmed = 0, [], 0
        for _ in range(runs):
            is_above = False
            state = Budget(0.03, 5, "simulation", Mode.CERTIFIED)
            for _ in range(6000):
                band = int(rng.integers(0, 5))
                draw = state.draw(band, float(rng.random()))
                if draw is None:
                    continue
                event = state.audited(draw, bool(rng.random() < errors[band]))
                alarmed += event is Event.ALARM
                is_above = is_above or float(np.mean(errors[: state.step + 1] or 0)) >= 0.03
            above += is_above
            steps.append(state.step + 1)
        lines.append([name, above / runs, median(steps), alarmed / runs])
    columns = [
        "errors by band",
        "ever served at or above 3 %",
        "median bands served",
        "alarms a run",
    ]
    return Table("Budgets in certified mode over 6,000 would-be hits (nominal 5 %)", columns, lines)


def times() -> Table:
    """CPU in turns would say no more: these take microseconds and are called apart."""
    entry = posterior(SHIPPED, [(1.0, 2.0, 1)])
    history = History()
    for at in range(32):
        history.add(float(at % 7) - 2, at % 3 > 0)
    seen, state = history.weighted(), Budget(0.01, 7, "simulation", first=1)
    cases = {
        "order by an entry's chance": lambda: chance(entry, 3.0),
        "learn: posterior of 32 observations": lambda: posterior(SHIPPED, seen),
        "draw an audit": lambda: state.draw(0, 0.99),
    }
    lines: Cells = []
    for name, case in cases.items():
        spent = []
        for _ in range(30):
            began = process_time()
            for _ in range(100):
                case()
            spent.append((process_time() - began) / 100 * 1e6)
        lines.append([name, round(median(spent), 2)])
    return Table("Time, median", ["what", "time"], lines, unit="µs")


def goals(wrong: Table, covered: Table) -> list[Goal]:
    most = max(float(row[1] or 0) for row in wrong.rows)
    missed = max(float(row[1] or 0) for row in covered.rows)
    return [
        Goal("runs certified wrongly, looked at after every audit", "<= 0.05", most, most <= 0.05),
        Goal("runs in which the upper limit is ever wrong", "<= 0.05", missed, missed <= 0.05),
    ]


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few runs; nothing is recorded")
    runs = 20 if (quick := parser.parse_args(argv).quick) else 200
    rng = np.random.default_rng(SEED)
    wrong, covered = false_certificates(rng, runs), limits(rng, runs // 4)
    tables = [wrong, certificates(rng, runs), alarms(rng, runs // 4), covered]
    tables += [states(rng, runs // 8), times()]
    for table in tables:
        print(table.title, "|", *table.columns, sep="\n  ")
        for row in table.rows:
            print("   ", *row)
    if not quick:
        record("audits", CLAIM, tables, goals(wrong, covered), packages=["numpy"])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
