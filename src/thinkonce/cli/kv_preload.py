"""`kv preload`: let a model server read prompts before anybody asks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from thinkonce.cli.gateway_view import GatewayError
from thinkonce.cli.line_file import Piece, count_lines, pieces
from thinkonce.cli.model_view import MODEL_SERVER, ModelUrl, ModelView
from thinkonce.cli.options import AsJson, Config
from thinkonce.cli.output import print_json, reporting
from thinkonce.cli.whose import ApiKeyEnv, Tenant, whose_headers
from thinkonce.settings import Sources

__all__ = ("kv_preload",)

# Sent at a time, then its results are read: one prompt is read at a time there.
MOST_LINES, MOST_BYTES = 50, 4 * 2**20
COUNTED = ("stored", "already", "failed")
Report = Callable[[str, float | None], None]


def kv_preload(
    file: Annotated[Path, typer.Argument(help="Lines of OpenAI's Batch format.")],
    url: ModelUrl = MODEL_SERVER,
    api_key_env: ApiKeyEnv = None,
    tenant: Tenant = None,
    config: Config = None,
    as_json: AsJson = False,
) -> int:
    """Let a model server read prompts ahead of time.

    No answer is made, and requests go first. Say whose prompts they are; without that, those of
    clients that show no key. What is kept already costs nothing, so after an interruption the same
    command goes on. Exits 1 if a line failed.
    """
    headers = whose_headers(api_key_env, tenant, None)
    run = _Run(file, count_lines(file))
    token = Sources(config=config).load().admin.token
    with ModelView(url, token) as view, reporting("preloading") as report:
        whole = run.over(view, headers, report)
    return run.tell(whole=whole, as_json=as_json)


class _Run:
    def __init__(self, file: Path, total: int) -> None:
        self._file, self._total = file, total
        self._counts = dict.fromkeys(COUNTED, 0)
        self._tokens = {"prompt_tokens": 0, "cached_tokens": 0, "kept_tokens": 0}

    def over(self, view: ModelView, headers: dict[str, str], report: Report) -> bool:
        """False where it was interrupted. Raises GatewayError."""
        try:
            for piece in pieces(self._file, MOST_LINES, MOST_BYTES):
                for row in _rows(view, piece, headers):
                    self._note(row, report)
        except KeyboardInterrupt:
            return False
        return True

    def tell(self, *, whole: bool, as_json: bool) -> int:
        counts, lines = self._counts, sum(self._counts.values())
        if as_json:
            print_json({"lines": lines, **counts, **self._tokens, "complete": whole})
        else:
            print(
                f"{lines} {'line' if lines == 1 else 'lines'}: {counts['stored']} read, "
                f"{counts['already']} there already, {counts['failed']} failed; "
                f"{self._tokens['kept_tokens']:,} tokens are kept"
            )
        if not whole:
            print(f"stopped; the same command goes on with {self._file}", file=sys.stderr)
        return 0 if whole and not counts["failed"] else 1

    def _note(self, row: dict[str, Any], report: Report) -> None:
        if "read" in row:
            self._say(report, row["read"] / max(1, row["of"]), f"{row['read']:,} of {row['of']:,}")
            return
        if not row["stored"]:
            self._counts["failed"] += 1
            name = f" ({row['custom_id']})" if row.get("custom_id") else ""
            print(f"line {row['line']}{name}: {row['error']}", file=sys.stderr)
        else:
            self._counts["already" if row["outcome"] == "hit" else "stored"] += 1
        for name in self._tokens:
            self._tokens[name] += row[name]
        self._say(report)

    def _say(self, report: Report, part: float = 0.0, tokens: str = "") -> None:
        done = sum(self._counts.values())
        of_line = f", {tokens} tokens of the next" if tokens else ""
        what = f"{done} of {self._total}{of_line}, {self._counts['failed']} failed"
        report(what, min(1.0, (done + part) / max(1, self._total)))


def _rows(view: ModelView, piece: Piece, headers: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Progress and results, with the lines' numbers in the file. Raises GatewayError."""
    first, lines = piece
    ended = False
    for raw in view.lines("POST", "/kv/preload?progress=true", b"".join(lines), headers):
        row = msgspec.json.decode(raw, type=dict[str, Any])
        if "done" in row:
            ended = True
        else:
            yield {**row, "line": row["line"] + first - 1}
    if not ended:
        raise GatewayError(f"{view.place} broke off its answer after line {first - 1}")
