"""`preload`: ask a running gateway ahead of time what clients will ask."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import msgspec
import typer

from thinkonce.cli.gateway_view import GatewayError, GatewayView
from thinkonce.cli.line_file import Piece, count_lines, pieces
from thinkonce.cli.options import GATEWAY, AsJson, Config
from thinkonce.cli.output import print_json, reporting
from thinkonce.cli.whose import ApiKeyEnv, Group, Tenant, whose_headers
from thinkonce.settings import Sources

__all__ = ("register",)

# Sent at a time, then its results are read: small enough that neither side waits for the other.
MOST_LINES, MOST_BYTES = 200, 4 * 2**20
COUNTED = ("stored", "already", "failed")


def register(app: typer.Typer) -> None:
    epilog = "Example: thinkonce preload faq.jsonl --api-key-env OPENAI_API_KEY --rate 5"
    app.command("preload", epilog=epilog)(preload)


def preload(
    file: Annotated[Path, typer.Argument(help="Lines of OpenAI's Batch format.")],
    url: Annotated[str, typer.Option("--url", help="The gateway.")] = GATEWAY,
    api_key_env: ApiKeyEnv = None,
    tenant: Tenant = None,
    group: Group = None,
    concurrency: Annotated[
        int, typer.Option(min=1, max=256, help="Requests under way at a time.")
    ] = 8,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Requests upstream a second, at most.")
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> int:
    """Warm a gateway's cache from a file of requests.

    Say whose entries they shall be. Lines that are stored already cost nothing, so after an
    interruption the same command goes on. Exits 1 if a line failed.
    """
    headers = whose_headers(api_key_env, tenant, group)
    total = count_lines(file)
    token = Sources(config=config).load().admin.token
    query = urlencode({"concurrency": concurrency} | ({} if rate is None else {"rate": rate}))
    counts = dict.fromkeys(COUNTED, 0)
    with GatewayView(url, token) as view, reporting("preloading") as report:
        whole = True
        try:
            for piece in pieces(file, MOST_LINES, MOST_BYTES):
                results = _results(view, f"/cache/preload?{query}", piece, headers)
                _note(results, counts, report, total)
        except KeyboardInterrupt:
            whole = False
    return _tell(counts, file, whole=whole, as_json=as_json)


def _results(
    view: GatewayView, path: str, piece: Piece, headers: dict[str, str]
) -> Iterator[dict[str, Any]]:
    """Each line's result, with its number in the file. Raises GatewayError."""
    first, lines = piece
    ended = False
    for raw in view.lines("POST", path, b"".join(lines), headers):
        row = msgspec.json.decode(raw, type=dict[str, Any])
        if "done" in row:
            ended = True
        else:
            yield {**row, "line": row["line"] + first - 1}
    if not ended:
        raise GatewayError(f"{view.place} broke off its answer after line {first - 1}")


def _note(
    results: Iterator[dict[str, Any]],
    counts: dict[str, int],
    report: Callable[[str, float | None], None],
    total: int,
) -> None:
    for row in results:
        if not row["stored"]:
            counts["failed"] += 1
            name = f" ({row['custom_id']})" if row.get("custom_id") else ""
            print(f"line {row['line']}{name}: {row['error']}", file=sys.stderr)
        else:
            counts["already" if row.get("outcome") == "hit" else "stored"] += 1
        done = sum(counts.values())
        report(f"{done} of {total}, {counts['failed']} failed", done / total)


def _tell(counts: dict[str, int], file: Path, *, whole: bool, as_json: bool) -> int:
    lines = sum(counts.values())
    if as_json:
        print_json({"lines": lines, **counts, "complete": whole})
    else:
        print(
            f"{lines} {'line' if lines == 1 else 'lines'}: {counts['stored']} stored, "
            f"{counts['already']} there already, {counts['failed']} failed"
        )
    if not whole:
        print(f"stopped; the same command goes on with {file}", file=sys.stderr)
    return 0 if whole and not counts["failed"] else 1
