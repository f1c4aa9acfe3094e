"""Reuse beyond the prefix: what it saves, and how far its answers are from full recompute.

The packaged model, fp32, one thread. Time is CPU seconds to the first token, with everything that
a request needs: chunks put in place, keys turned, tokens chosen and computed. Fidelity is measured
on real prompts of about 550 tokens in three or four chunks (questions over passages between
passages of other questions, key-value retrieval, agents' calls, long texts cut to fit) against one
pass over the same ids: KL and agreement of the next token at 16 places. Two controls: chunks side
by side with nothing computed again, and as many tokens as a method takes, drawn at random.

    python benchmarks/kv_reuse.py --quick          a few minutes, nothing is written down
    python benchmarks/kv_reuse.py --prompts 200    hours; goes on where it was stopped
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from record import Goal, Table, record
from reuse.audited import corrected, settled
from reuse.controls import Everything, Naive, RandomLike, blend
from reuse.encoding import Encoded, assembled
from reuse.fidelity import PLACES, Bench, Method
from reuse.paired import Paired, paired
from reuse.prompts import Prompt, prompts

from thinkonce.kv.generation.decode import forward
from thinkonce.kv.generation.slab import Slab
from thinkonce.kv.generation.support import shape_of
from thinkonce.kv.reuse.blend import Gradual
from thinkonce.kv.reuse.layout import Choice, Layout
from thinkonce.kv.reuse.link import Link
from thinkonce.kv.reuse.looked import Looked
from thinkonce.kv.reuse.rotation import Rotation
from thinkonce.kv.reuse.selective import recomputed
from thinkonce.kv.reuse.stock import STOCK
from thinkonce.kv.weights import packaged
from thinkonce.kv.weights.model import load

SHAPES = ((8, 256), (5, 1024))
NEW, ROUNDS, PROMPTS, QUICK = 64, 3, 200, 8
TUNED = 12  # prompts on which settings were chosen; they are not reported
EVERY = 9  # all tokens computed again, the control that must give 0: on one prompt in nine
KEPT = Path(__file__).parent / "build" / "kv_reuse.jsonl"
CLAIM = "Chunks at any place cost their chosen tokens; how right the answers are is measured."
BLEND, GRADUAL, LOOKED = blend(0.15, "both"), Gradual(0.15, "both"), Looked(0.15)
FRONT = "stock"

TIMED: Sequence[Choice] = (Naive(), Link(16), BLEND, GRADUAL, LOOKED)
METHODS: Sequence[Method] = (
    Method(Naive(), turned=False),
    Method(Naive()),
    Method(Link(16)),
    Method(RandomLike(Link(16))),
    Method(BLEND),
    Method(GRADUAL),
    Method(RandomLike(BLEND)),
    Method(Naive(), "endoftext"),
    Method(Naive(), FRONT),
    Method(Link(16), FRONT),
    Method(GRADUAL, FRONT),
    Method(LOOKED, FRONT),
    Method(RandomLike(LOOKED), FRONT),
    Method(Looked(0.3, link=8), FRONT),
    Method(Looked(0.5, link=8), FRONT),
)
EVERYTHING = Method(Everything())
# Of which the first is said to diverge less than the second.
COMPARED: Sequence[tuple[Method, Method]] = (
    (Method(Naive()), Method(Naive(), turned=False)),
    (Method(Link(16)), Method(Naive())),
    (Method(Link(16)), Method(RandomLike(Link(16)))),
    (Method(BLEND), Method(RandomLike(BLEND))),
    (Method(GRADUAL), Method(BLEND)),
    (Method(Naive(), "endoftext"), Method(Naive())),
    (Method(Naive(), FRONT), Method(Naive())),
    (Method(Link(16), FRONT), Method(Link(16))),
    (Method(LOOKED, FRONT), Method(RandomLike(LOOKED), FRONT)),
    (Method(LOOKED, FRONT), Method(GRADUAL, FRONT)),
)

Records = Mapping[str, Mapping[str, dict[str, Any]]]
"""By method, then by prompt."""
Seconds = dict[str, list[float]]


def main(argv: list[str]) -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--prompts", type=int, default=PROMPTS)
    options.add_argument("--quick", action="store_true", help="8 prompts and one round")
    options.add_argument("--rounds", type=int, default=ROUNDS, help="of the timings")
    options.add_argument("--kept", type=Path, default=KEPT, help="what was measured so far")
    options.add_argument("--fidelity", action="store_true", help="measure prompts, write no page")
    options.add_argument("--page", action="store_true", help="write the page from what is kept")
    given = options.parse_args(argv)
    if packaged.locate(packaged.MODELS[0]) is None:
        print(f"{packaged.DEFAULT} is not installed, left out: thinkonce model install")
        return 0
    torch.set_num_threads(1)
    model = load()
    count = QUICK if given.quick else given.prompts
    if not given.page:
        given.kept.parent.mkdir(parents=True, exist_ok=True)
        measure(model, count, given.kept)
    if given.fidelity:
        return 0
    times = kept_times(model.network, 1 if given.quick else given.rounds, given.kept)
    records, kinds = known(given.kept)
    if not records:
        return 0
    tables = [*speed_tables(times), *fidelity_tables(records, kinds), tests_table(records)]
    tables.append(audits_table(records))
    for table in tables:
        print(table.title, *("\t".join(map(str, row)) for row in table.rows), sep="\n")
    if not given.quick:
        write(times, records, tables)
    return 0


# -- fidelity --------------------------------------------------------------------------------------


def measure(model: Any, count: int, kept: Path) -> None:
    """Prompts that are not in the file yet, a line a method, in its one order."""
    tokenizer = model.tokenizer

    def cut(text: str) -> list[int]:
        found: list[int] = tokenizer.encode(text, add_special_tokens=False)
        return found

    chosen = prompts(cut, TUNED + count)[TUNED:]
    done = {json.loads(line)["prompt"] for line in _lines(kept)}
    dummies = {
        "stock": cut(STOCK),
        "endoftext": 4 * [tokenizer.convert_tokens_to_ids("<|endoftext|>")],
    }
    bench = Bench(model.network, dummies)
    for number, prompt in enumerate(chosen):
        if prompt.name in done:
            continue
        began = time.perf_counter()
        _write(kept, prompt, bench.measured(prompt, _methods(number)))
        seconds = time.perf_counter() - began
        print(f"{number + 1} of {len(chosen)}: {prompt.name}, {seconds:.0f} s", flush=True)


def _methods(number: int) -> Sequence[Method]:
    return METHODS if number % EVERY else (*METHODS, EVERYTHING)


def _write(kept: Path, prompt: Prompt, records: Iterator[dict[str, Any]]) -> None:
    """A prompt's lines at once: one that was stopped halfway is measured anew."""
    about = {"prompt": prompt.name, "kind": prompt.kind, "tokens": len(prompt.tokens)}
    lines = [json.dumps(about | each) + "\n" for each in records]
    with kept.open("a", encoding="utf-8") as file:
        file.write("".join(lines))


def known(kept: Path) -> tuple[Records, Mapping[str, str]]:
    """What the file holds, and each prompt's kind."""
    records: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    kinds = {}
    for line in _lines(kept):
        each = json.loads(line)
        records[each["method"]][each["prompt"]] = each
        kinds[each["prompt"]] = each["kind"]
    return records, kinds


def _lines(kept: Path) -> list[str]:
    return kept.read_text(encoding="utf-8").splitlines() if kept.exists() else []


# -- time to the first token -----------------------------------------------------------------------


def kept_times(network: Any, rounds: int, kept: Path) -> dict[tuple[int, int], Seconds]:
    """What was timed before beside the file of prompts, else measured and kept there."""
    file = kept.with_suffix(".times.json")
    if not file.exists():
        measured = {f"{chunks} {size}": s for (chunks, size), s in timed(network, rounds).items()}
        file.write_text(json.dumps(measured), encoding="utf-8")
    found = json.loads(file.read_text(encoding="utf-8"))
    return {(int(key.split()[0]), int(key.split()[1])): seconds for key, seconds in found.items()}


def timed(network: Any, rounds: int) -> dict[tuple[int, int], Seconds]:
    """CPU seconds by case, one a round, and under `rows` the tokens computed."""
    return {shape: _timed(network, *shape, rounds) for shape in SHAPES}


def _timed(network: Any, chunks: int, size: int, rounds: int) -> Seconds:
    length = chunks * size + NEW
    tokens = torch.randint(20, 4000, (length,), generator=torch.Generator().manual_seed(1)).tolist()
    places = tuple(range(at, at + size) for at in range(0, chunks * size, size))
    layout, slab = Layout(length, places), Slab(shape_of(network))
    stored, rotation = _stored(network, tokens, places), Rotation(network)
    found: Seconds = defaultdict(list)
    for _ in range(rounds):
        slab.begin()
        with torch.inference_mode():
            slab.reserve(length)
        _clock(found, "full", lambda: forward(network, tokens, 0, slab.cache))
        for choice in TIMED:
            plan = choice.plan(layout, network.config.num_hidden_layers)

            def read(plan: Any = plan) -> Any:
                with torch.inference_mode():
                    assembled(slab, rotation, layout, None, stored)
                    return recomputed(network, slab, tokens, layout, plan)

            found[f"{choice.name} rows"] = [_clock(found, choice.name, read).rows]
    return found


def _stored(network: Any, tokens: list[int], places: Sequence[range]) -> list[Encoded]:
    """States of the right size; what they hold takes no time to compute with."""
    shape = shape_of(network)
    return [Encoded(torch.randn_like(shape.empty(len(each))), 0) for each in places]


def _clock(found: Seconds, name: str, case: Callable[[], Any]) -> Any:
    began = time.process_time()
    result = case()
    found[name].append(time.process_time() - began)
    return result


# -- the page --------------------------------------------------------------------------------------


def speed_tables(times: Mapping[tuple[int, int], Seconds]) -> list[Table]:
    tables = []
    for (chunks, size), seconds in times.items():
        full = median(seconds["full"])
        rows: list[list[str | float | int | None]] = [
            ["full recompute", chunks * size + NEW, round(full, 2), 1.0]
        ]
        for choice in TIMED:
            took = median(seconds[choice.name])
            computed = round(seconds[f"{choice.name} rows"][0])
            rows.append([choice.name, computed, round(took, 2), round(full / took, 1)])
        title = f"{chunks} chunks of {size:,} tokens and {NEW} new: CPU seconds to the first token"
        columns = ["method", "tokens computed", "seconds", "full / method"]
        tables.append(Table(title, columns, rows, chart="full / method"))
    return tables


def fidelity_tables(records: Records, kinds: Mapping[str, str]) -> list[Table]:
    shown = [each.name for each in (*METHODS, EVERYTHING) if each.name in records]
    count = len(records["full"])
    columns = ["method", "tokens computed", "KL mean", "median", "P95", "agreement", "first token"]
    rows: list[list[str | float | int | None]] = []
    for name in shown:
        each = list(records[name].values())
        divergence = [one["kl"] for one in each]
        rows.append(
            [
                name,
                round(fmean(one["rows"] for one in each)),
                round(fmean(divergence), 4),
                round(median(divergence), 4),
                round(spread_95(divergence), 4),
                round(fmean(one["agree"] for one in each), 3),
                round(fmean(one["first_agree"] for one in each), 3),
            ]
        )
    title = f"Against full recompute, {count} prompts, {PLACES} places each"
    return [Table(title, columns, rows, chart="agreement"), kinds_table(records, kinds, shown)]


def spread_95(values: Sequence[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(0.95 * len(values)))]


def kinds_table(records: Records, kinds: Mapping[str, str], shown: Sequence[str]) -> Table:
    """Agreement apart by kind of prompt."""
    every = sorted(set(kinds.values()))
    rows: list[list[str | float | int | None]] = []
    for name in shown:
        row: list[str | float | int | None] = [name]
        for kind in every:
            some = [one for prompt, one in records[name].items() if kinds[prompt] == kind]
            row.append(round(fmean(one["agree"] for one in some), 3) if some else None)
        rows.append(row)
    return Table("Agreement by kind of prompt", ["method", *every], rows)


def compared(records: Records) -> list[tuple[str, str, Paired]]:
    found = []
    for one, other in COMPARED:
        both = sorted(set(records.get(one.name, ())) & set(records.get(other.name, ())))
        if len(both) > 1:
            values = [[records[each.name][name]["kl"] for name in both] for each in (one, other)]
            found.append((one.name, other.name, paired(*values)))
    return found


def tests_table(records: Records) -> Table:
    least = 0.05 / len(COMPARED)
    rows: list[list[str | float | int | None]] = [
        [
            f"{one} < {other}",
            f"{test.below} of {test.count}",
            f"{test.mean:+.4f} ({test.low:+.4f} to {test.high:+.4f})",
            f"{test.sign:.1e}",
            f"{test.ranks:.1e}",
            verdict(test, least),
        ]
        for one, other, test in compared(records)
    ]
    columns = ["KL of", "lower on", "mean difference", "p, signs", "p, ranks", "shown"]
    title = f"Paired tests; {len(COMPARED)} comparisons, so p < {least:.3f} is needed"
    return Table(title, columns, rows)


def audits_table(records: Records) -> Table:
    """The meter, the ladder and auto, on audits drawn from what was measured."""
    served, wrong = Method(Looked(0.3, link=8), FRONT).name, Method(Naive()).name
    counts = corrected(_rows(records, served), _rows(records, wrong), [served])
    settings = [each.name for each in METHODS if each.behind == FRONT and _is_setting(each)]
    length = fmean(each["rows"] for each in _rows(records, "full"))
    found = settled({name: _rows(records, name) for name in settings}, length)
    ends = ", ".join(f"{name} ({count})" for name, count in found.served.most_common())
    rows: list[list[str | float | int | None]] = [
        ["a seeded degradation is corrected: audits, median", counts[len(counts) // 2]],
        ["the same, most of 200 runs", counts[-1]],
        ["auto: answers until one is approximate, median", found.first[len(found.first) // 2]],
        ["auto: what is served in the end (of 20 runs)", ends],
        ["audits / saved compute, steady", round(found.share, 4)],
    ]
    title = f"Fidelity meter, on audits drawn from these prompts; {served} was made {wrong}"
    return Table(title, ["", "found"], rows)


def _rows(records: Records, name: str) -> list[dict[str, Any]]:
    return list(records[name].values())


def _is_setting(method: Method) -> bool:
    return not isinstance(method.choice, Naive | RandomLike)


def verdict(test: Paired, least: float) -> str:
    if max(test.sign, test.ranks) >= least:
        return "no"
    return "yes" if test.mean < 0 and 2 * test.below > test.count else "the other way round"


def write(
    times: Mapping[tuple[int, int], Seconds], records: Records, tables: Sequence[Table]
) -> None:
    goals = [*speed_goals(times), *fidelity_goals(records)]
    notes = [
        "SmolLM2-135M-Instruct, fp32, 1 thread. KL(full || method) in nats, a mean over the "
        "places; every part of a prompt is cut into tokens on its own, for full recompute too.",
        "`behind`: what chunks were encoded behind, nothing where it is not said. `stock`: a fixed "
        "text that says nothing of interest. `endoftext`: four tokens of that name.",
        "Scores of answers are a page of their own, kv_answers: most of these questions this model "
        "cannot answer.",
    ]
    record("kv_reuse", CLAIM, tables, goals, notes, packages=["torch", "transformers"])


def speed_goals(times: Mapping[tuple[int, int], Seconds]) -> list[Goal]:
    goals = []
    for shape, choice, least in (
        ((8, 256), Link(16), 4.0),
        ((5, 1024), Link(16), 8.0),
        ((8, 256), BLEND, 2.2),
    ):
        seconds = times[shape]
        found = median(seconds["full"]) / median(seconds[choice.name])
        what = f"full / {choice.name}, {shape[0]} x {shape[1]:,}"
        goals.append(Goal(what, f">= {least:g}", round(found, 1), found >= least))
    return goals


def fidelity_goals(records: Records) -> list[Goal]:
    tests = {(one, other): test for one, other, test in compared(records)}
    link, drawn = Method(Link(16)).name, Method(RandomLike(Link(16))).name
    better = tests[link, drawn]
    gradual = tests[Method(GRADUAL).name, Method(BLEND).name]
    goals = [
        Goal(
            "link 16 against as many at random: p of the signs",
            "< 0.01",
            float(f"{better.sign:.2g}"),
            better.sign < 0.01 and better.mean < 0,
        ),
        Goal("gradual - blend, mean KL", "<= 0", round(gradual.mean, 4), gradual.mean <= 0),
    ]
    faithful = _cheapest_faithful(records)
    rows = fmean(one["rows"] for one in records["full"].values())
    if faithful is None:
        goals.append(Goal("methods with agreement >= 0.95 and KL <= 0.05", ">= 1", 0, False))
    else:
        name, cost = faithful
        what = f"full / tokens computed by the cheapest with agreement >= 0.95, KL <= 0.05: {name}"
        goals.append(Goal(what, "> 1", round(rows / cost, 1), rows > cost))
    return goals


def _cheapest_faithful(records: Records) -> tuple[str, float] | None:
    """Its name and the tokens it computes."""
    found = []
    for each in METHODS:
        some = list(records.get(each.name, {}).values())
        agreement, divergence = (fmean(one[field] for one in some) for field in ("agree", "kl"))
        if agreement >= 0.95 and divergence <= 0.05:
            found.append((fmean(one["rows"] for one in some), each.name))
    return (min(found)[1], min(found)[0]) if found else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
