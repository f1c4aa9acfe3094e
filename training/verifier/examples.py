"""What one epoch of training is made of: labelled pairs, their variations, and near neighbours."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from alike import nearest, of_intents
from edits import another, same
from implied import implied
from labelled import Pair, background, intents, pairs

__all__ = ("CLASS_A", "Corpus", "corpus")

CLASS_A = ("pawsx_zh", "banking77", "clinc150", "arena_hard")  # sets that may be copied
# How often a set's pairs come in an epoch. English has four times as many as any Chinese set.
_TIMES = {"qqp": 1.0, "lcqmc": 2.0, "bq_corpus": 1.6, "oppo_xiaobu": 2.0, "covid_pairs_zh": 1.0,
          "pawsx_zh": 3.0, "banking77": 1.0, "clinc150": 1.0}  # fmt: skip
# Variations in an epoch, for each of: another question, the same, a variation of a labelled pair.
_VARIED = {"another": 0.15, "same": 0.08, "chained": 0.05}
_NEIGHBOURS = 0.08
_IMPLIED = 0.5  # share of the implied pairs: what follows from two labels is wrong twice as often


class Corpus:
    """Real pairs of the training part, texts to vary, and neighbours that are not the same."""

    def __init__(
        self, real: list[Pair], derived: list[Pair], texts: list[str], neighbours: list[Pair]
    ) -> None:
        self.real, self.implied, self.texts, self.neighbours = real, derived, texts, neighbours

    def epoch(self, seed: int) -> list[Pair]:
        chance = random.Random(seed)
        found = [pair for pair in self.real for _ in range(_times(pair, chance))]
        found += chance.sample(self.implied, int(len(self.implied) * _IMPLIED))
        size = len(found)
        found += _varied(self.texts, int(size * _VARIED["another"]), another, 0, chance)
        found += _varied(self.texts, int(size * _VARIED["same"]), same, 1, chance)
        found += list(_chained(self.texts, int(size * _VARIED["chained"]), chance))
        most = min(int(size * _NEIGHBOURS), len(self.neighbours))
        found += chance.sample(self.neighbours, most)
        dressed = [_dressed(pair, chance) for pair in found]
        chance.shuffle(dressed)
        return dressed


def corpus(data: Path, leave_out: Sequence[str] = (), *, only_class_a: bool = False) -> Corpus:
    """`leave_out`: sets that training must not see, for a test on traffic of another kind."""
    out = {*leave_out}
    real = [pair for pair in pairs(data) if pair.part == "train" and pair.source not in out]
    if only_class_a:
        real = [pair for pair in real if pair.source in CLASS_A]
    derived = implied(real)
    if only_class_a:
        # Hardly anything else there says in English that two questions are one.
        real += of_intents(intents("banking77", data), "banking77", slots=False)
        real += of_intents(_in_scope("clinc150", data), "clinc150", slots=True)
    plain = [name for name in ("banking77", "clinc150", "arena_hard") if name not in out]
    if not only_class_a:
        plain += [name for name in ("msmarco_dev_queries", "sogouq_sample") if name not in out]
    chance = random.Random(0)
    texts = list(dict.fromkeys(text for pair in real for text in (pair.a, pair.b)))
    for name in plain:
        texts += chance.sample(found := background(name, data), min(len(found), 4000))
    texts = [text for text in texts if len(text) <= 300]
    return Corpus(real, derived, texts, _neighbours(data, plain))


def _in_scope(name: str, data: Path) -> list[tuple[str, str]]:
    """What lies outside of all intents has nothing in common."""
    return [(text, intent) for text, intent in intents(name, data) if intent != "oos"]


def _times(pair: Pair, chance: random.Random) -> int:
    times = _TIMES[pair.source]
    return int(times) + (chance.random() < times % 1)


def _varied(texts, count, vary, label, chance):  # type: ignore[no-untyped-def]
    found: list[Pair] = []
    for text in chance.choices(texts, k=count * 2):
        other = vary(text, chance)
        if other is not None:
            found.append(Pair(text, other, label, vary.__name__))
        if len(found) == count:
            break
    return found


def _chained(texts: list[str], count: int, chance: random.Random) -> Iterator[Pair]:
    """Another question, said in another way too: its dress must not excuse it."""
    for text in chance.choices(texts, k=count):
        other = another(text, chance)
        if other is not None:
            yield Pair(text, same(other, chance) or other, 0, "chained")


def _dressed(pair: Pair, chance: random.Random) -> Pair:
    """Either order; now and then with a typing error or other marks, as people write."""
    a, b = (pair.a, pair.b) if chance.random() < 0.5 else (pair.b, pair.a)
    if pair.source in _TIMES and chance.random() < 0.15:
        a = same(a, chance) or a
    return Pair(a, b, pair.label, pair.source)


def _neighbours(data: Path, names: Sequence[str]) -> list[Pair]:
    """Questions most alike in letters that are known to ask different things."""
    found: list[Pair] = []
    for name in names:
        if name in ("banking77", "clinc150"):
            asked = intents(name, data)
        elif name == "msmarco_dev_queries":  # real questions, each once
            asked = [(text, text) for text in background(name, data)]
        else:
            continue
        found += nearest(asked, name, 0)
    return found
