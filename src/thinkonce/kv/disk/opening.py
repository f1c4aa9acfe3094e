"""What an engine finds in the folder that its settings name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from thinkonce.clock import Clock
from thinkonce.kv.disk.folder import made_folder
from thinkonce.kv.disk.models import Models, describe
from thinkonce.kv.disk.sealing import folder_keys
from thinkonce.kv.disk.tier import DiskTier
from thinkonce.kv.disk.whole_file import WholeFile
from thinkonce.kv.prefix.fingerprint import Fingerprint
from thinkonce.kv.prefix.purges import Purges
from thinkonce.settings import Kv
from thinkonce.tiers.keyring import Keyring

__all__ = ("OnDisk", "opened_disk")


@dataclass(frozen=True, slots=True)
class OnDisk:
    """What lies in the folder, where there is one."""

    tier: DiskTier | None = None
    owners_key: bytes = b""
    purges: Purges = field(default_factory=Purges)
    others: Models | None = None
    fidelity: WholeFile | None = None


def opened_disk(
    kv: Kv, keys: Keyring, fingerprint: Fingerprint, clock: Clock, name: str = ""
) -> OnDisk:
    """Of the folder that the settings name, sealed with `keys`; nothing where they name none.
    `name`: what the model is served as.

    Raises ConfigError for a folder that cannot be written, and for one of another key.
    """
    if not kv.store:
        return OnDisk()
    folder = made_folder(Path(kv.store).expanduser(), "[kv] store")
    found = folder_keys(folder, keys)
    purges = Purges(folder / "purges.json", found.sealing)
    tier = DiskTier(
        folder,
        fingerprint.digest(),
        kv.disk,
        secret=found.owners,
        form=found.form,
        clock=clock,
    )
    describe(folder, fingerprint, name)
    name = fingerprint.digest().hex()
    fidelity = WholeFile(folder / name / "fidelity", f"thinkonce fidelity 1 {name}", found.owners)
    others = Models(folder, fingerprint, found.form)
    return OnDisk(tier, found.owners, purges, others, fidelity)
