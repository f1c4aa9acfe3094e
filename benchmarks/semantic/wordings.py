"""How often questions in nearly the same words have one answer, the guards being silent.

    python benchmarks/semantic/wordings.py                # the part that rules may be tuned on
    python benchmarks/semantic/wordings.py --part test

By kind of likeness, and English and Chinese apart: the plain form is equal (`meaning.lexical`; such
pairs are hits), the guards' normal form is, or n-grams overlap so much (2-grams in Chinese, 3-grams
in English). A pair counts where it is most alike. Labels at the very top are noisy; read the wrong.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache

from alone import ngrams
from labelled import LANGUAGE, Pair, pairs

from thinkonce.meaning.guards.examine import examine
from thinkonce.meaning.text.analysis import Analysed, analyse
from thinkonce.meaning.text.lexical import fingerprint, plain_form

STEPS = (0.95, 0.9, 0.85, 0.8, 0.7, 0.6)
TIMED = 3000  # texts


@lru_cache(maxsize=200_000)
def read(text: str) -> Analysed:
    return analyse(text)


def kind(pair: Pair) -> str:
    """How alike the two are; "" for less than is looked at, or where a guard objects."""
    a, b = read(pair.a), read(pair.b)
    overlap = ngrams([pair])[0]
    plain = plain_form(pair.a) == plain_form(pair.b)
    if (overlap < STEPS[-1] and not plain) or examine(a, b):
        return ""
    if plain:
        return "same plain form"
    if a.normal == b.normal:
        return "same normal form"
    return f"n-grams >= {next(step for step in STEPS if overlap >= step):.2f}"


def language(pair: Pair) -> str:
    return LANGUAGE.get(pair.source, "zh")


def main(argv: Iterable[str]) -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--part", choices=("train", "calibration", "test"), default="train")
    options.add_argument("--wrong", action="store_true", help="show plain forms labelled otherwise")
    given = options.parse_args(list(argv))
    chosen = [pair for pair in pairs() if pair.part == given.part]
    counts: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for pair in chosen:
        name = kind(pair)
        counts[language(pair), name][pair.label] += 1
        if given.wrong and name.startswith("same") and not pair.label:
            print(f"{pair.source}: {pair.a} | {pair.b}")
    for tongue in ("en", "zh"):
        true = sum(pair.label for pair in chosen if language(pair) == tongue)
        print(f"{tongue}: {true} true pairs")
        for (spoken, name), (wrong, right) in sorted(counts.items(), reverse=True):
            if name and spoken == tongue:
                held, share = wrong + right, right / (wrong + right)
                print(f"  {name:18} {held:6} pairs, right {share:.3f}, of all {right / true:.3f}")
    texts = [pair.a for pair in chosen[:TIMED]]
    fingerprint(texts[0])
    began = time.process_time()
    for text in texts:
        fingerprint(text)
    print(f"a fingerprint: {(time.process_time() - began) / len(texts) * 1e6:.0f} us")


if __name__ == "__main__":
    main(sys.argv[1:])
