"""`encrypt`: a store brought under its key, under a new one, or back to plain text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from thinkonce.cli.open_view import chosen_settings
from thinkonce.cli.options import AsJson, Config, StoreUrl
from thinkonce.cli.output import print_json, reporting, show_count
from thinkonce.cli.store_view import UNBOUNDED, file_of
from thinkonce.clock import SYSTEM
from thinkonce.errors import MISSING, ConfigError, TierError
from thinkonce.settings import Store
from thinkonce.store_file import StoreFile, open_file
from thinkonce.tiers.keyring import SETTING, cipher_of, keys_of, make_key_file

__all__ = ("register",)

PLAIN = "plain"  # how a store is settled that no key encrypts


def register(app: typer.Typer) -> None:
    epilog = "Example: thinkonce encrypt --make-key ~/.thinkonce.key"
    app.command("encrypt", epilog=epilog)(encrypt)


def encrypt(
    make_key: Annotated[
        Path | None, typer.Option(help="Write a new key to this file, and do nothing else.")
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="Write the store as plain text.")] = False,
    forget: Annotated[
        bool, typer.Option("--forget", help="Remove what none of the keys opens.")
    ] = False,
    store: StoreUrl = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Encrypt all of a store with the first of its keys.

    Nothing older is left in its files. A running process does the same in the background; this
    waits for it to be done. Stop those that run without the key, or with another one, first.
    """
    if make_key is not None:
        make_key_file(make_key.expanduser())
        print(f"{make_key} holds a new key; keep a copy: without it what it encrypts is lost")
        return
    settings = chosen_settings(store, None, config).store
    told = _carried_out(settings, off=off, forget=forget)
    if as_json:
        print_json(told)
        return
    how = "plain" if told["key"] is None else f"encrypted with key {told['key']}"
    gone = f"; {show_count(told['forgotten'])} forgotten" if forget else ""
    print(f"{show_count(told['entries'])} in {told['store']}, all {how}{gone}")


def _carried_out(store: Store, *, off: bool, forget: bool) -> dict[str, Any]:
    path, keys = file_of(store), keys_of(store)
    if path is None or not path.exists():
        raise ConfigError("--store", store.url, "a store with a file that exists")
    if not keys.encryption and not forget:
        accepts = "the key: THINKONCE_STORE_ENCRYPTION_KEY, or the name of its file"
        raise ConfigError(SETTING, MISSING, accepts)
    keys = replace(keys, seals=not off, check=not forget)
    file = open_file(path, keys, clock=SYSTEM, max_bytes=UNBOUNDED)
    cipher = cipher_of(keys, "sqlite")
    key = None if off or cipher is None else cipher.ids[0]
    try:
        forgotten = file.tier.forget_unreadable() if forget else 0
        if keys.encryption:
            _settle(file, key or PLAIN)
        entries = sum(file.tier.settled()[1].values())
    finally:
        file.close()
    return {"store": str(path), "entries": entries, "key": key, "forgotten": forgotten}


def _settle(file: StoreFile, wanted: str) -> None:
    """Write entries, then the file, anew. Raises TierError where that cannot be finished now."""
    with reporting("encrypting") as report:
        report("writing entries and file anew", None)
        file.tier.tidy()
    if file.tier.settled()[0] != wanted:
        wants = "writing the file anew, which another process reads or writes: stop that first"
        raise TierError("sqlite", wants)
