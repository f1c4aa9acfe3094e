"""Which blocks of attention state to keep: a public trace through the index that serves.

Replays Mooncake's conversations (FAST 2025) at four sizes under every policy, beside LRU and one
that knows the future. Sessions of coding agents take minutes each: `thinkonce plan --kv` replays
them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from record import Goal, Table, record

from thinkonce.kv.planning.replay import PLANNED, Replayed, replayed
from thinkonce.kv.planning.trace import Trace, read_trace

TRACE = Path(__file__).resolve().parents[2] / "shared/data/mooncake/conversation.jsonl.gz"
SHARES = (0.01, 0.05, 0.1, 0.2)
COLUMNS = ["size", "policy", "loaded", "against LRU", "read p50", "read p95", "read p99"]
NOTES = [
    "Loaded: share of all prompt tokens. Read: tokens of one prompt that had to be computed. "
    "Size: share of the blocks that differ.",
    "The half-life of forward decay (300 s) was chosen elsewhere on this same trace, so its lead "
    "is optimistic.",
    "Late: prompts of which more than 8,192 tokens had to be read. That table counts the second "
    "half of the trace; the shift of `tail` was chosen by the first half, its percentile by "
    "conversations of ShareGPT and sessions of coding agents too.",
]
WITHIN = 8192  # tokens
Cells = dict[tuple[float, str], Replayed]


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer requests; nothing recorded")
    quick = parser.parse_args(argv).quick
    if not TRACE.exists():
        print("the trace is absent (shared/data/mooncake): skipped")
        return 0
    trace = read_trace(str(TRACE))
    half = len(trace.requests) // 2
    if quick:
        trace = Trace(trace.requests[:500], trace.block_tokens)
    cells = {
        (share, policy): replayed(trace, policy, max(1, round(share * trace.distinct)))
        for share in SHARES
        for policy in PLANNED
    }
    held_out = {
        (share, policy): replayed(trace, policy, round(share * trace.distinct), WITHIN, half)
        for share in (0.05, 0.1)
        for policy in ("lru", "guarded", "tail")
    }
    if not quick:
        record(
            "kv_eviction",
            "Policies that count uses load more of Mooncake's conversations than LRU at each size.",
            [table(cells), tails(held_out)],
            [*goals(cells), *tail_goals(held_out)],
            NOTES,
            packages=["msgspec"],
        )
    for goal in (*goals(cells), *tail_goals(held_out)):
        print(f"{'met   ' if goal.met else 'MISSED'} {goal.what}: {goal.measured} ({goal.goal})")
    return 0


def table(cells: Cells) -> Table:
    rows: list[list[str | float | int | None]] = [
        [f"{share:.0%}", policy, round(cell.hit_ratio, 4), against_lru(cells, share, policy),
         cell.read_p50, cell.read_p95, cell.read_p99]
        for (share, policy), cell in cells.items()
    ]  # fmt: skip
    return Table("Mooncake conversations, 512 tokens a block", COLUMNS, rows)


def against_lru(cells: Cells, share: float, policy: str) -> float:
    return round(cells[share, policy].hit_ratio / cells[share, "lru"].hit_ratio, 3)


def goals(cells: Cells) -> list[Goal]:
    """Those of the mean; goals of the tail are for a policy that is told a target."""
    found = []
    for share in SHARES:
        ratio = against_lru(cells, share, "guarded")
        least = 1.05 if share == 0.05 else 1.0
        found.append(Goal(f"guarded / LRU at {share:.0%}", f">= {least}", ratio, ratio >= least))
    return found


def tails(cells: Cells) -> Table:
    rows: list[list[str | float | int | None]] = [
        [f"{share:.0%}", policy, round(cell.hit_ratio, 4), against_lru(cells, share, policy),
         round(100 * (cell.late or 0.0), 1), cell.read_p50, cell.read_p95, cell.read_p99]
        for (share, policy), cell in cells.items()
    ]  # fmt: skip
    columns = [*COLUMNS[:4], "late, %", *COLUMNS[4:]]
    return Table("A target of 8,192 tokens, second half of the trace", columns, rows)


def tail_goals(cells: Cells) -> list[Goal]:
    found = []
    for share in (0.05, 0.1):
        lru, tail = cells[share, "lru"], cells[share, "tail"]
        late = round((tail.late or 0.0) / (lru.late or 1.0), 3)
        found.append(Goal(f"late prompts, tail / LRU at {share:.0%}", "< 1", late, late < 1))
        ratio = against_lru(cells, share, "tail")
        found.append(Goal(f"loaded, tail / LRU at {share:.0%}", ">= 1", ratio, ratio >= 1))
    return found


if __name__ == "__main__":
    import sys

    raise SystemExit(main(sys.argv[1:]))
