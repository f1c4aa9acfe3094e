"""What lies in a folder of attention state, looked at from outside: no server has to run.

Nothing is written, locked or removed; servers may write there meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import NamedTuple

from thinkonce.clock import SYSTEM, Clock
from thinkonce.errors import ConfigError
from thinkonce.kv.disk.catalogue import Catalogue
from thinkonce.kv.disk.folder import Folder, is_fingerprint
from thinkonce.kv.disk.model_folders import check_root, said_of, shown_model
from thinkonce.kv.disk.rows import Rows, read_rows
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
        check_root(root, "--kv-store")
        found = [_held(path, clock) for path in root.iterdir() if is_fingerprint(path.name)]
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
    return Held(
        path.name, shown_model(said_of(path)), {each.id: each for each in listed(catalogue, clock)}
    )


def _rows(path: Path) -> Rows:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return read_rows(descriptor)
    finally:
        os.close(descriptor)
