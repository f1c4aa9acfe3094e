"""Would the command line take these words, and the settings these variables? Nothing is started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import typer

from thinkonce.cli.app import app
from thinkonce.cli.serve import with_optional_model
from thinkonce.settings import Settings, Sources

__all__ = ("accepted_by_serve", "loads")


def accepted_by_serve(words: Sequence[str]) -> None:
    """Of the two servers. Raises a usage error of the parser's for words that it does not take."""
    name, *arguments = with_optional_model(words)
    assert name in ("serve", "serve-model")
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    command.make_context(name, list(arguments))


def loads(environ: Mapping[str, str]) -> Settings:
    """Raises ConfigError for a variable that is no setting, or has a value that will not do."""
    return Sources(environ=environ).load()
