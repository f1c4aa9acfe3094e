"""`kv ls` and `kv show`: the prefix tree of a model server, or of its folder while none runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from thinkonce.cli.model_view import MODEL_SERVER, ModelUrl, ModelView
from thinkonce.cli.options import AsJson, Config
from thinkonce.cli.output import print_json, print_pairs, print_table, show_bytes, show_seconds
from thinkonce.errors import RequestError
from thinkonce.settings import Sources
from thinkonce.web.log_lines import printable

__all__ = ("MOST_BRANCHES", "SHOWN_OWNER", "kv_ls", "kv_show")

COLUMNS = (
    *("BLOCK", "TOKENS", "UP TO", "MEMORY", "DISK", "AGE", "USED", "HITS", "LIFE"),
    *("PRIORITY", "WHOSE"),
)
# What gives way in a narrow terminal, the first first.
SPARE = ("PRIORITY", "LIFE", "AGE", "WHOSE", "DISK", "USED")
BLOCKS = ("BLOCK", "TOKENS", "MEMORY", "DISK", "AGE", "USED", "HITS")
SHOWN_DIGITS, SHOWN_OWNER = 12, 15
MOST_BRANCHES = 100_000
Folder = Annotated[
    Path | None,
    typer.Option("--kv-store", metavar="DIR", help="A folder of `serve-model`, not a server."),
]
Found = list[dict[str, Any]]


def kv_ls(
    limit: Annotated[int, typer.Option(min=1, max=MOST_BRANCHES, help="Branches at most.")] = 200,
    url: ModelUrl = MODEL_SERVER,
    kv_store: Folder = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """The prefix tree: what prompts share once, then how each goes on.

    A branch is a row of blocks that nothing tells apart; its name is that of the last one.
    """
    if kv_store is not None:
        _ls_folder(kv_store, limit, as_json)
        return
    with ModelView(url, Sources(config=config).load().admin.token) as view:
        found = list(view.branches(limit + 1))
    if as_json:
        print_json(found[:limit])
    elif found:
        _print_tree(found, limit)
    else:
        print(f"nothing is kept in {view.place}")


def kv_show(
    block: Annotated[str, typer.Argument(help="A block of `kv ls`: 8 or more of its digits.")],
    url: ModelUrl = MODEL_SERVER,
    kv_store: Folder = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """One chain of blocks, and the beginning of its text.

    Of a folder there is no text: tokens are read by the model they belong to.
    """
    if kv_store is not None:
        told = _of_folder(kv_store, block)
    else:
        with ModelView(url, Sources(config=config).load().admin.token) as view:
            told = view.chain(block)
    if as_json:
        print_json(told)
        return
    blocks, text = told.pop("blocks"), told.pop("text", None)
    cut, ends = told.pop("cut", 0), told.pop("ends", "")
    print_pairs(_for_people(told))
    print()
    print_table(BLOCKS, [_cells_of_block(each) for each in blocks])
    if text is not None:
        print()
        print(_on_screen(text))
        if cut:
            print(f"[{cut:,} characters]\n{_on_screen(ends)}")


def _ls_folder(folder: Path, limit: int, as_json: bool) -> None:
    from thinkonce.kv.disk.listing import held_in
    from thinkonce.kv.prefix.branches import branches_of

    models = [
        (held, [msgspec.to_builtins(each) for each in islice(branches_of(held.blocks), limit + 1)])
        for held in held_in(folder)
    ]
    if as_json:
        told = [{"fingerprint": h.fingerprint, "entries": found[:limit]} for h, found in models]
        print_json(told)
        return
    for number, (held, found) in enumerate(models):
        print("\n" if number else "", end="")
        print(f"model {held.fingerprint[:SHOWN_DIGITS]}" + (held.model and f" ({held.model})"))
        if found:
            _print_tree(found, limit)
    if not any(found for _, found in models):
        print(f"nothing is kept in {folder}")


def _of_folder(folder: Path, digits: str) -> dict[str, Any]:
    from thinkonce.kv.disk.listing import held_in
    from thinkonce.kv.prefix.branches import chain_as_told, named

    held = held_in(folder)
    blocks = {name: block for each in held for name, block in each.blocks.items()}
    alike = named(blocks, digits)
    if len(alike) != 1:
        raise RequestError("BLOCK", digits, f"digits that one block begins with, not {len(alike)}")
    return chain_as_told(blocks, alike[0])


def _print_tree(found: Found, limit: int) -> None:
    memory, disk = (sum(row[f"{name}_bytes"] for row in found) for name in ("memory", "disk"))
    roots = sum(not row["depth"] for row in found)
    told, more = found[:limit], len(found) > limit
    print_table(
        COLUMNS,
        [(name, *_cells(row)) for name, row in zip(_drawn(told), told, strict=True)],
        spare=SPARE,
    )
    if more:
        print(f"(the first {limit:,} branches; --limit shows more)")
        return
    blocks = sum(row["blocks"] for row in found)
    print(
        f"\n{_many(blocks, 'block')} in {_many(len(found), 'branch')} of {_many(roots, 'root')}: "
        f"{show_bytes(memory)} in memory, {show_bytes(disk)} on disk"
    )


def _many(count: int, what: str) -> str:
    ending = "" if count == 1 else "es" if what.endswith("ch") else "s"
    return f"{count:,} {what}{ending}"


def _drawn(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The names, set in below each other as a tree is drawn."""
    last = {row["parent"]: row["id"] for row in rows}
    bars: list[str] = []
    for row in rows:
        depth, name = row["depth"], row["id"][:SHOWN_DIGITS]
        is_last = last[row["parent"]] == row["id"]
        del bars[max(0, depth - 1) :]
        if depth:
            yield "".join(bars) + ("└─ " if is_last else "├─ ") + name
            bars.append("   " if is_last else "│  ")
        else:
            yield name


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        f"{row['tokens']:,}",
        f"{row['start'] + row['tokens']:,}",
        *_places(row),
        show_seconds(row["age"]),
        show_seconds(row["used"]),
        f"{row['hits']:,}",
        show_seconds(row["expires_in"]),
        row["priority"],
        _whose(row),
    )


def _cells_of_block(row: dict[str, Any]) -> tuple[str, ...]:
    ages = (show_seconds(row["age"]), show_seconds(row["used"]))
    return (row["id"], f"{row['tokens']:,}", *_places(row), *ages, f"{row['hits']:,}")


def _places(row: dict[str, Any]) -> tuple[str, str]:
    memory, disk = row["memory_bytes"], row["disk_bytes"]
    return show_bytes(memory or None), show_bytes(disk or None)


def _whose(row: dict[str, Any]) -> str:
    """Whose it is, and what of its own words keeps it apart."""
    owner = row["tenant"][:SHOWN_OWNER]
    names = [*row["tags"], *row["documents"]]
    said = [row["namespace"], row["cache_key"], ", ".join(names)]
    return printable(" / ".join(filter(None, [owner, *said]))) or "-"


def _on_screen(text: str) -> str:
    """Without anything that a terminal would act upon: a client wrote it."""
    return "\n".join(map(printable, text.split("\n")))


def _listed(value: object) -> str:
    """Names beside each other."""
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _for_people(told: dict[str, Any]) -> dict[str, Any]:
    seconds = {"age", "used", "expires_in"}
    named = {"used": "last used", "id": "block", "children": "go on from it"}
    return {
        named.get(name, name): show_seconds(value) if name in seconds else printable(_listed(value))
        for name, value in told.items()
        if value not in ("", [], ())
    }
