"""`plan`: what another size or policy would have saved."""

from __future__ import annotations

from typing import Annotated

import typer

from thinkonce.cli.later import NotBuilt
from thinkonce.cli.options import AsJson
from thinkonce.cli.output import print_json, print_table, reporting
from thinkonce.errors import MISSING, ConfigError

__all__ = ("register",)

COLUMNS = ("SIZE", "BLOCKS", "POLICY", "LOADED", "READ P50", "READ P95", "READ P99", "EVICTED")
SHARES = (0.01, 0.05, 0.1, 0.2, 0.5, 1.0)
Blocks = Annotated[
    list[int] | None,
    typer.Option(help="Blocks that fit; may be repeated.  [default: 1 to 100% of the trace's]"),
]


def register(app: typer.Typer) -> None:
    app.command("plan", epilog="Example: thinkonce plan --kv conversation.jsonl.gz")(plan)


def plan(
    log: Annotated[
        str | None, typer.Argument(help="A log of requests. Not built yet.", show_default=False)
    ] = None,
    kv: Annotated[
        str | None,
        typer.Option(metavar="TRACE", help="Requests as names of blocks; - is standard input."),
    ] = None,
    blocks: Blocks = None,
    within: Annotated[
        int,
        typer.Option(min=0, help="Tokens that can be read within a prompt's target; 0: no target."),
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """What another size or policy would have saved."""
    if log is not None:
        raise NotBuilt("`plan` of a log is not built yet in this version; --kv TRACE is")
    if kv is None:
        raise ConfigError("what to replay", MISSING, "--kv TRACE")
    from thinkonce.kv.planning.replay import PLANNED, replayed
    from thinkonce.kv.planning.trace import read_trace

    with reporting("reading the trace") as report:
        trace = read_trace(kv)
        sizes = _sizes(blocks, trace.distinct)
        runs = [(size, policy) for size in sizes for policy in PLANNED]
        rows = []
        for number, (size, policy) in enumerate(runs):
            report(f"{policy}, {size:,} blocks", number / len(runs))
            rows.append(replayed(trace, policy, size, within))
    if as_json:
        tokens = sum(asked.tokens for asked in trace.requests)
        told = {"requests": len(trace.requests), "tokens": tokens, "distinct": trace.distinct}
        print_json(told | {"block_tokens": trace.block_tokens, "runs": [r._asdict() for r in rows]})
        return
    print(
        f"{len(trace.requests):,} requests, {trace.distinct:,} distinct blocks of "
        f"{trace.block_tokens} tokens\n"
    )
    print_table(
        (*COLUMNS, "LATE") if within else COLUMNS,
        [
            (
                f"{row.blocks / max(1, trace.distinct):.0%}",
                f"{row.blocks:,}",
                row.policy,
                f"{row.hit_ratio:.1%}",
                *(f"{each:,}" for each in (row.read_p50, row.read_p95, row.read_p99, row.evicted)),
                *(() if row.late is None else (f"{row.late:.1%}",)),
            )
            for row in rows
        ],
    )
    print("\nLOADED: share of all prompt tokens. READ: tokens of a prompt that had to be read.")
    if within:
        print(f"LATE: share of prompts of which more than {within:,} tokens had to be read.")


def _sizes(given: list[int] | None, distinct: int) -> list[int]:
    for size in given or ():
        if size < 1:
            raise ConfigError("--blocks", size, "1 or more")
    return sorted(set(given or (max(1, round(share * distinct)) for share in SHARES)))
