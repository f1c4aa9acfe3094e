"""What lies in a folder of attention state, looked at from outside: no server has to run.

Nothing is written, locked or removed; servers may write there meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import NamedTuple

import msgspec

from thinkonce.clock import SYSTEM, Clock
from thinkonce.errors import ConfigError
from thinkonce.kv.disk.catalogue import Catalogue
from thinkonce.kv.disk.folder import OWNERS_KEY, Folder
from thinkonce.kv.disk.rows import Rows, read_rows
from thinkonce.kv.disk.sealing import FOLDER_KEY
from thinkonce.kv.prefix.branches import Listed

__all__ = ("Held", "held_in", "listed")


class Held(NamedTuple):
    """Of one model, told apart by the digest `fingerprint`; `model` tells what it is, if it is
    known. `blocks` by their names.
    """

    fingerprint: str
    model: str
    blocks: dict[bytes, Listed]


def held_in(root: Path, clock: Clock = SYSTEM) -> list[Held]:
    """Of each model, the largest first. Raises ConfigError for what is no such folder."""
    try:
        if not any((root / key).exists() for key in (OWNERS_KEY, FOLDER_KEY)):
            accepts = "a folder that `thinkonce serve-model --kv-store DIR` wrote"
            raise ConfigError("--kv-store", str(root), accepts)
        found = [_held(path, clock) for path in root.iterdir() if path.is_dir()]
    except OSError as error:
        accepts = f"a folder that can be read ({error.strerror})"
        raise ConfigError("--kv-store", str(root), accepts) from None
    return sorted(found, key=lambda held: -len(held.blocks))


def listed(catalogue: Catalogue, clock: Clock = SYSTEM) -> Iterator[Listed]:
    """The blocks that it knows and that have not expired."""
    now, wall = clock.monotonic(), clock.wall()
    for row, expires, weight in catalogue.held():
        if expires <= now:
            continue
        written = float(row["written"])
        yield Listed(
            row["id"].tobytes(),
            row["parent"].tobytes(),
            int(row["tokens"]),
            disk=int(row["length"]),
            added=max(0.0, wall - written) if written else None,
            left=expires - now if expires != inf else inf,
            weight=weight,
        )


def _held(path: Path, clock: Clock) -> Held:
    folder, catalogue = Folder(path), Catalogue(clock=clock)
    for writer in folder.writers():
        catalogue.add(writer, _rows(folder.rows(writer)))
    return Held(path.name, _said(path), {each.id: each for each in listed(catalogue, clock)})


def _rows(path: Path) -> Rows:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return read_rows(descriptor)
    finally:
        os.close(descriptor)


def _said(path: Path) -> str:
    """The architecture and the number type: a model's name is not written down."""
    try:
        told = msgspec.json.decode((path / "model.json").read_bytes(), type=dict[str, str | int])
        config = msgspec.json.decode(str(told["config"]), type=dict[str, object])
        kind, codec = f"{config['model_type']}, {told['dtype']}", told.get("codec", "raw")
        return f"{kind}, {told['chunk_tokens']} tokens a block, {codec}"
    except (OSError, msgspec.DecodeError, KeyError, TypeError):
        return ""
