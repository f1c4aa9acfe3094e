"""`purge`: forget entries, in a store or a running gateway."""

from __future__ import annotations

from typing import Annotated

import typer

from thinkonce.cli.open_view import open_view
from thinkonce.cli.options import AsJson, Config, StoreUrl, Url
from thinkonce.cli.output import print_json, show_count
from thinkonce.cli.view import Chosen
from thinkonce.errors import MISSING, ConfigError
from thinkonce.selector import key_digits
from thinkonce.units import parse_seconds

__all__ = ("register",)


def register(app: typer.Typer) -> None:
    app.command("purge", epilog="Example: thinkonce purge --tag faq --older-than 24h")(purge)


def purge(
    tag: Annotated[list[str] | None, typer.Option(help="With any of these tags.")] = None,
    namespace: Annotated[str | None, typer.Option(help="In this namespace.")] = None,
    model: Annotated[str | None, typer.Option(help="Of this model.")] = None,
    key: Annotated[str | None, typer.Option(help="A key, or 8 or more of its digits.")] = None,
    older_than: Annotated[str | None, typer.Option(help="Made longer ago: 90s, 5m, 24h.")] = None,
    expired: Annotated[bool, typer.Option("--expired", help="Past their life.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Every entry.")] = False,
    store: StoreUrl = None,
    url: Url = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Forget the entries that match every option given."""
    chosen = Chosen(
        tags=tuple(tag or ()),
        namespace=namespace,
        model=model,
        key=None if key is None else key_digits(key, "--key"),
        older_than=None if older_than is None else parse_seconds(older_than, "--older-than"),
        expired=expired,
        all=everything,
    )
    if chosen.is_empty():
        raise ConfigError("what to forget", MISSING, "--tag faq, --older-than 7d, ... or --all")
    with open_view(store, url, config) as view:
        done = view.purge(chosen)
    if as_json:
        engines = {"engines": done.engines} if done.engines else {}
        print_json({"purged": done.purged, "store": view.place, **engines})
        return
    print(f"purged {show_count(done.purged)} from {view.place}")
    for engine, told in done.engines.items():
        disk = told.get("disk") or {}
        on_disk = f", {disk['blocks']:,} on disk" if disk else ""
        print(f"attention state of {engine}: {told['purged']:,} blocks in memory{on_disk}")
