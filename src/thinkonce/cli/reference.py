"""Every command's help as text, for docs/cli.md and the test that each has an example."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from thinkonce.cli.app import app

__all__ = ("command_help",)

WIDTH = 100


def command_help() -> Iterator[tuple[str, str]]:
    """(full name, help) of the program, its commands and their subcommands."""
    yield from _walk(typer.main.get_command(app), "thinkonce", None)


def _walk(command: Any, name: str, parent: Any) -> Iterator[tuple[str, str]]:
    context = typer.Context(
        command,
        info_name=name.split()[-1],
        parent=parent,
        max_content_width=WIDTH,
        help_option_names=["-h", "--help"],  # as the program itself has them
    )
    # The width of a terminal must not show in a file.
    context.terminal_width = WIDTH
    yield name, command.get_help(context)
    for child, found in getattr(command, "commands", {}).items():
        yield from _walk(found, f"{name} {child}", context)
