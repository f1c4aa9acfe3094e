"""`bench`: the benchmarks of a checkout, or with and without cache on one's own prompts."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from thinkonce.cli import compare
from thinkonce.cli.options import GATEWAY, AsJson
from thinkonce.cli.output import print_json, print_table
from thinkonce.errors import MISSING, ConfigError

__all__ = ("register",)


def register(app: typer.Typer) -> None:
    app.command(
        "bench",
        epilog="Example: thinkonce bench --prompts questions.txt --url http://127.0.0.1:8000",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )(bench)


def bench(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(help="A benchmark; what follows is passed on to it.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Run all of them in turn.")] = False,
    prompts: Annotated[
        Path | None, typer.Option(help="Prompts to ask: text, one a line, or JSON lines.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(help=f"The gateway to ask.  [default: {GATEWAY}]")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="For prompts that name none.  [default: the gateway's first]"),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Run benchmarks; without NAME, list them.

    With --prompts, ask each of one's own prompts without the cache and with it.
    """
    if prompts is not None or url is not None:
        if prompts is None:
            raise ConfigError("--prompts", MISSING, "--prompts FILE together with --url URL")
        compare.run(compare.read_prompts(prompts), url or GATEWAY, model, as_json)
        return 0
    folder = benchmark_folder()
    known = benchmarks(folder)
    if every:
        return max([_run(known[found], []) for found in sorted(known)], default=0)
    if name is None:
        _list(known, as_json)
        return 0
    if name not in known:
        raise ConfigError("bench", name, " | ".join(sorted(known)))
    return _run(known[name], [*context.args, *(["--json"] if as_json else [])])


def benchmark_folder() -> Path:
    """Of the checkout one stands in, else of the one this package was installed from."""
    for root in (Path.cwd(), Path(__file__).resolve().parents[3]):
        if (root / "benchmarks").is_dir() and (root / "pyproject.toml").is_file():
            return root / "benchmarks"
    accepts = "`bench` in a checkout, or `bench --prompts FILE` against a running gateway"
    raise ConfigError(f"{Path.cwd() / 'benchmarks'}", MISSING, accepts)


def benchmarks(folder: Path) -> dict[str, Path]:
    """Files that can be run, by name; others beside them are what they share."""
    files = (file for file in folder.rglob("*.py") if not file.name.startswith("_"))
    return {file.stem: file for file in files if "def main(" in file.read_text(encoding="utf-8")}


def _list(known: dict[str, Path], as_json: bool) -> None:
    rows = [{"name": name, "claim": _claim(file)} for name, file in sorted(known.items())]
    if as_json:
        print_json(rows)
    else:
        print_table(("NAME", "CLAIM"), [(row["name"], row["claim"]) for row in rows])


def _claim(file: Path) -> str:
    """The first line of its docstring."""
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]


def _run(file: Path, arguments: list[str]) -> int:
    done = subprocess.run([sys.executable, str(file), *arguments], check=False)
    return min(abs(done.returncode), 1)
