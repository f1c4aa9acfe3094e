"""`stats`, `ls` and `show`: look into a store or a running gateway."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import typer

from thinkonce.cli.open_view import open_view
from thinkonce.cli.options import AsJson, Config, StoreUrl, Url
from thinkonce.cli.other_words import print_other_words, taken_apart
from thinkonce.cli.output import print_json, print_pairs, print_table, show_bytes, show_seconds
from thinkonce.cli.view import Chosen
from thinkonce.insight.apart import Apart, sentences
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
# What gives way in a narrow terminal, the first first.
SPARE = ("FORM", "PRIORITY", "TOKENS", "NAMESPACE", "TAGS", "TTL", "BYTES")
# What `stats` calls a number, where that is not the name it has for programs.
LABELS = {
    "bytes": "size",
    "cost": "weight in eviction",
    "epoch": "purges so far",
    "following": "waiting for others",
    "file_bytes": "size of the file",
    "label": "cache_key",
    "source": "upstream pool",
    "purge_epoch": "purges so far",
    "secret": "fingerprint of secret",
    "saved_seconds": "time saved",
    "saved_tokens": "tokens saved",
    "saved_usd": "money saved",
    "max_size": "most entries in memory",
    "max_bytes": "most bytes in memory",
    "store_max_bytes": "most bytes in store",
    "dropped_writes": "writes dropped",
}
NO_PRICE = "unknown; [prices.NAME] says what a model costs"
# What one row of savings tells.
SAVED = ("CALLS", "ITEMS", "TOKENS", "MONEY", "TIME", "UNPRICED")
SHOWN_ROWS = 12
# Digits of a key in a table: unique among a million entries but for one chance in 10^7.
SHOWN_DIGITS = 16


def register(app: typer.Typer) -> None:
    app.command("stats", epilog="Example: thinkonce stats --url http://127.0.0.1:8000")(stats)
    app.command("ls", epilog="Example: thinkonce ls --tag faq --limit 20")(ls)
    app.command("show", epilog="Example: thinkonce show 3f9a01c2 --content")(show)


def stats(
    store: StoreUrl = None, url: Url = None, config: Config = None, as_json: AsJson = False
) -> None:
    """What is held, what it saved, and what keeps requests apart."""
    with open_view(store, url, config) as view:
        found = view.stats()
    if as_json:
        print_json(found)
        return
    savings, kept_apart = found.pop("savings", {}), found.pop("apart", None)
    listed = taken_apart(found.get("semantic", {}))
    if found.get("saved_usd", 0.0) is None:
        found["saved_usd"] = NO_PRICE
    print_pairs({"store": view.place, **for_people(found)})
    for line in sentences(msgspec.convert(kept_apart, Apart)) if kept_apart else ():
        print(line)
    print_other_words(listed)
    print_savings(savings)


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
    """List entries, the newest first."""
    chosen = Chosen(tags=tuple(tag or ()), namespace=namespace, model=model)
    with open_view(store, url, config) as view:
        rows = sorted(view.entries(chosen, limit), key=lambda row: row.age)
    if as_json:
        print_json(rows)
    elif rows:
        print_table(COLUMNS, map(_cells, rows), spare=SPARE)
    else:
        none = "no entries" if chosen == Chosen() else "nothing matches"
        print(f"{none} in {view.place}")


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
    print_pairs(for_people(found))
    if content:
        print()
        print(answer) if isinstance(answer, str) else print_json(answer)


def for_people(found: dict[str, Any]) -> dict[str, Any]:
    """Numbers of a store or a gateway with their units, under names that say what they are."""
    told: dict[str, Any] = {}
    for name, value in found.items():
        label = LABELS.get(name, name)
        if isinstance(value, dict):
            told[label] = for_people(value)
        else:
            told[label] = _with_unit(name, value)
    return told


def print_savings(savings: dict[str, Any]) -> None:
    """One table per dimension, the greatest first; hours: the latest that saved anything."""
    for dimension, rows in savings.items():
        if not dimension.startswith("by_") or not rows:
            continue
        names = list(rows)[-SHOWN_ROWS:] if dimension == "by_hour" else list(rows)[:SHOWN_ROWS]
        print(f"\nsaved by {dimension.removeprefix('by_').replace('_', ' ')}")
        print_table(
            (dimension.removeprefix("by_").upper(), *SAVED),
            [(_with_clients(name, rows[name]), *_saved(rows[name])) for name in names],
        )
        if len(rows) > len(names):
            print(f"... and {len(rows) - len(names)} more: --json shows all")


def _with_clients(name: str, row: dict[str, Any]) -> str:
    """And whom a tenant stands for, where a gateway knows them."""
    clients = row.get("clients")
    return f"{name} ({', '.join(clients)})" if clients else name or "-"


def _saved(row: dict[str, Any]) -> tuple[str, ...]:
    usd = "unknown" if row["usd"] is None else str(_with_unit("usd", row["usd"]))
    numbers = (row["calls"], row["items"], row["tokens"])
    return (*map(str, numbers), usd, show_seconds(row["seconds"]), str(row["unpriced"]))


def _with_unit(name: str, value: object) -> object:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return value
    if name.endswith("bytes"):
        return show_bytes(value)
    if name.endswith("seconds") or name in ("age", "ttl"):
        return show_seconds(value)
    if name.endswith("usd"):
        return f"${value:.2f}" if value >= 1 else f"${value:.6f}"
    return f"{value:.1%}" if name.endswith("rate") else value


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
