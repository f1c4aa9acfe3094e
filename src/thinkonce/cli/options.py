"""Options that several commands share, said in the same words everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ("GATEWAY", "AsJson", "Config", "StoreUrl", "Url")

GATEWAY = "http://127.0.0.1:8000"  # where `serve` listens unless told otherwise

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Config = Annotated[
    Path | None,
    typer.Option("--config", help="TOML file.  [default: thinkonce.toml, if there is one]"),
]
StoreUrl = Annotated[
    str | None,
    typer.Option("--store", help="sqlite:///relative.db or sqlite:////absolute.db"),
]
Url = Annotated[
    str | None,
    typer.Option("--url", help="A running gateway, not a store; token: THINKONCE_ADMIN_TOKEN."),
]
