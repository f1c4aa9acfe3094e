"""`kv models` and `kv drop`: whose attention state lies in a folder, and away with what is old."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thinkonce.cli.options import AsJson, Config
from thinkonce.cli.output import print_json, print_table, show_bytes, show_seconds
from thinkonce.errors import MISSING, ConfigError, ThinkOnceError
from thinkonce.settings import Settings, Sources
from thinkonce.units import parse_seconds
from thinkonce.web.log_lines import printable

if TYPE_CHECKING:
    from thinkonce.kv.disk.model_folders import ModelFolder

__all__ = ("kv_drop", "kv_models")

COLUMNS = ("MODEL", "NAME", "WHAT IT IS", "BYTES", "AGE", "IN USE")
SPARE = ("WHAT IT IS", "NAME")
SHOWN_DIGITS = 12
Folder = Annotated[
    Path | None,
    typer.Option(
        "--kv-store",
        metavar="DIR",
        help="A folder of `serve-model`.  [default: [kv] store]",
        show_default=False,
    ),
]


def kv_models(kv_store: Folder = None, config: Config = None, as_json: AsJson = False) -> None:
    """The models whose attention state lies in a folder, the largest first.

    A model whose weights, number type, chunk length or releases changed is another one: what was
    kept for it before stays until it is dropped. AGE is since the last of it was written.
    """
    from thinkonce.kv.disk.model_folders import model_folders

    settings = Sources(config=config).load()
    root = _root(kv_store, settings)
    with _reading(root):
        found = model_folders(root)
    if as_json:
        print_json(found)
        return
    if not found:
        print(f"nothing is kept in {root}")
        return
    print_table(COLUMNS, list(map(_cells, found)), spare=SPARE)
    most = show_bytes(settings.kv.disk)
    print(f"\n{_sum(found)} in {root}; each may take {most} ([kv] disk)")


def kv_drop(
    model: Annotated[
        list[str] | None, typer.Argument(help="8 or more of its digits, as `kv models` shows.")
    ] = None,
    older_than: Annotated[
        str | None,
        typer.Option(help="All that are not in use and were not written to for so long: 24h, 30d."),
    ] = None,
    kv_store: Folder = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Remove what is kept for models: for those that are named, or that are old.

    What a running server uses is never removed.
    """
    if bool(model) == (older_than is not None):
        raise ConfigError(
            "what to remove", model or MISSING, "digits of models, or --older-than 30d"
        )
    root = _root(kv_store, Sources(config=config).load())
    with _reading(root):
        if older_than is None:
            gone = _drop_named(root, model or ())
        else:
            gone = _drop_older(root, parse_seconds(older_than, "--older-than"))
    if as_json:
        print_json(gone)
        return
    for each in gone:
        print(f"removed {each.fingerprint[:SHOWN_DIGITS]}  {show_bytes(each.bytes)}")
    print(f"{_sum(gone)} removed from {root}" if gone else f"nothing to remove in {root}")


def _drop_named(root: Path, names: Sequence[str]) -> list[ModelFolder]:
    """All of them, or none: a name that fits no model, or one in use, is said before."""
    from thinkonce.kv.disk.model_folders import chosen, drop, in_use, model_folders

    folders = model_folders(root)
    found = {each.fingerprint: each for each in (chosen(folders, name) for name in names)}
    for each in found.values():
        if each.in_use:
            raise in_use(root / each.fingerprint)
    for name in found:
        drop(root, name)
    return list(found.values())


def _drop_older(root: Path, seconds: float) -> list[ModelFolder]:
    from thinkonce.kv.disk.model_folders import InUse, drop, model_folders

    gone = []
    for each in model_folders(root):
        if each.age <= seconds or each.in_use:
            continue
        try:
            drop(root, each.fingerprint)
        except InUse:  # a server has begun with it since
            continue
        gone.append(each)
    return gone


def _root(given: Path | None, settings: Settings) -> Path:
    from thinkonce.kv.disk.model_folders import check_root

    written = "--kv-store" if given is not None else "[kv] store"
    root = given or (Path(settings.kv.store) if settings.kv.store else None)
    if root is None:
        raise ConfigError("--kv-store", MISSING, "the folder of a model server, or [kv] store")
    root = root.expanduser()
    with _reading(root):
        check_root(root, written)
    return root


@contextmanager
def _reading(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ThinkOnceError(f"{error.filename or root}: {error.strerror or error}") from None


def _cells(folder: ModelFolder) -> tuple[str, ...]:
    return (
        folder.fingerprint[:SHOWN_DIGITS],
        printable(folder.name) or "-",
        printable(folder.kind) or "-",
        show_bytes(folder.bytes),
        show_seconds(round(folder.age)),
        "yes" if folder.in_use else "no",
    )


def _sum(folders: Sequence[ModelFolder]) -> str:
    count, size = len(folders), sum(folder.bytes for folder in folders)
    return f"{count} {'model' if count == 1 else 'models'}, {show_bytes(size)}"
