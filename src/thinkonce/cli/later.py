"""Commands that are promised and not built yet: each says so and exits 2."""

from __future__ import annotations

from collections.abc import Callable

import typer

from thinkonce.errors import ThinkOnceError

__all__ = ("NOT_BUILT", "NotBuilt", "register")

NOT_BUILT = {
    "lint": ("Prompt layouts that break prompt caching.", "lint prompts.jsonl"),
}


class NotBuilt(ThinkOnceError):
    """A command of the plan that this version does not have."""


def register(app: typer.Typer) -> None:
    for name, (what, example) in NOT_BUILT.items():
        app.command(
            name,
            help=f"{what} Not built yet: exits 2.",
            short_help=f"{what.removesuffix('.')} (not built yet)",
            epilog=f"Example: thinkonce {example}",
            context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
        )(_refusal(name))


def _refusal(name: str) -> Callable[[typer.Context], None]:
    def refuse(_: typer.Context) -> None:
        raise NotBuilt(f"`{name}` is not built yet in this version")

    return refuse
