"""Joins a verifier with another one in a folder inside its own, and says so on its card.

    python join.py --to ../../src/thinkonce/meaning/weights --other permissive --share 4

Writes `joined.json`, fits `calibration.json` to both together, and ends the card with their scores
on the test part.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks" / "semantic"), str(ROOT / "src")]

from card import by_cosine, logits, table, with_score  # noqa: E402
from labelled import PAIR_SETS, pairs  # noqa: E402
from measure import report  # noqa: E402
from scales import fitted  # noqa: E402

from thinkonce.meaning.verifiers.joined import JOINED, verifier  # noqa: E402

HEADING = "## Joined"


def main(options: argparse.Namespace) -> None:
    said = {"folder": options.other, "share": options.share}
    (options.to / JOINED).write_text(json.dumps(said) + "\n", encoding="utf-8")
    fitted(options.to, 1.0, options.seed)
    card = options.to / "README.md"
    text = card.read_text(encoding="utf-8").split(HEADING)[0]
    card.write_text(text + "\n".join(section(options)), encoding="utf-8")


def section(options: argparse.Namespace) -> list[str]:
    asked, model = [p for p in pairs(options.data) if p.part == "test"], verifier(options.to)
    said, near = logits(model, asked), by_cosine(asked)
    by = {
        "both": report(asked, said),
        "both and score": report(asked, with_score(model, asked, said, near)),
    }
    counts = {name: sum(pair.source == name for pair in asked) for name in PAIR_SETS}
    return [
        HEADING,
        "",
        f"Used is its logit and {options.share:g} times that of `{options.other}/`, which no",
        "labelled paraphrases have taught: on kinds of questions that training never saw both",
        "know far more than it does (`left_out` in",
        "docs/benchmarks.md). `calibration.json` is of both. Scores on the test part:",
        "",
        *table(counts, by),
        "",
    ]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--to", type=Path, required=True, help="the folder of the one")
    parser.add_argument("--other", required=True, help="a folder in it")
    parser.add_argument("--share", type=float, required=True, help="of the other's logit")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main(arguments())
