"""`stats`, `ls` and `show`: look into a store or a running gateway."""

from __future__ import annotations

from typing import Annotated

import typer

from thinkonce.cli.open_view import open_view
from thinkonce.cli.options import AsJson, Config, StoreUrl, Url
from thinkonce.cli.output import print_json, print_pairs, print_table, show_bytes, show_seconds
from thinkonce.cli.view import Chosen
from thinkonce.insight.entries import EntryRow
from thinkonce.selector import key_digits

__all__ = ("register",)

COLUMNS = (
    "KEY",
    "FORM",
    "SCOPE",
    "MODEL",
    "NAMESPACE",
    "TAGS",
    "PRIORITY",
    "BYTES",
    "TOKENS",
    "AGE",
    "TTL",
)
# Digits of a key in a table: unique among a million entries but for one chance in 10^7.
SHOWN_DIGITS = 16


def register(app: typer.Typer) -> None:
    app.command("stats", epilog="Example: thinkonce stats --url http://127.0.0.1:8000")(stats)
    app.command("ls", epilog="Example: thinkonce ls --tag faq --limit 20")(ls)
    app.command("show", epilog="Example: thinkonce show 3f9a01c2 --content")(show)


def stats(
    store: StoreUrl = None, url: Url = None, config: Config = None, as_json: AsJson = False
) -> None:
    """What a store or a running gateway holds, and what it saved."""
    with open_view(store, url, config) as view:
        found = view.stats()
    if as_json:
        print_json(found)
    else:
        print_pairs({"store": view.place, **found})


def ls(
    tag: Annotated[list[str] | None, typer.Option(help="With any of these tags.")] = None,
    namespace: Annotated[str | None, typer.Option(help="In this namespace.")] = None,
    model: Annotated[str | None, typer.Option(help="Of this model.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Entries at most.")] = 100,
    store: StoreUrl = None,
    url: Url = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List entries."""
    chosen = Chosen(tags=tuple(tag or ()), namespace=namespace, model=model)
    with open_view(store, url, config) as view:
        rows = view.entries(chosen, limit)
    if as_json:
        print_json(rows)
    elif rows:
        print_table(COLUMNS, map(_cells, rows))
    else:
        print(f"no entries in {view.place}")


def show(
    key: Annotated[str, typer.Argument(help="A key, or 8 or more of its first digits.")],
    content: Annotated[bool, typer.Option("--content", help="Print the answer too.")] = False,
    store: StoreUrl = None,
    url: Url = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """One entry."""
    digits = key_digits(key, "KEY")
    with open_view(store, url, config) as view:
        found = view.show(digits, content)
    if as_json:
        print_json(found)
        return
    answer = found.pop("content", None)
    print_pairs(found)
    if content:
        print()
        print(answer) if isinstance(answer, str) else print_json(answer)


def _cells(row: EntryRow) -> tuple[str, ...]:
    return (
        row.key[:SHOWN_DIGITS],
        row.form,
        row.scope,
        row.model,
        row.namespace,
        ",".join(row.tags),
        row.priority,
        show_bytes(row.bytes),
        str(row.tokens),
        show_seconds(row.age),
        show_seconds(row.ttl),
    )
