"""Two cross-encoders of one folder as one verifier: one's logit and a share of the other's.

`joined.json` in the folder names the other one, in a folder inside it, and its share:

    {"folder": "permissive", "share": 4.0}

What was trained on labelled pairs knows their kinds of questions and little of others; what was
not knows neither well, and carries over.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from thinkonce.errors import ConfigError
from thinkonce.meaning.verdict.verifier import Verifier
from thinkonce.meaning.verifiers import exported

__all__ = ("JOINED", "Joined", "verifier")

JOINED = "joined.json"


class _Other(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    folder: str
    share: float


def verifier(folder: Path) -> Verifier:
    """The one of the folder, with the one that `joined.json` names where there is such a file.

    `calibration.json` in the folder is of both together. Raises ConfigError where a package or a
    file is missing, or does not fit.
    """
    one, file = exported.verifier(folder), folder / JOINED
    if not file.is_file():
        return one
    try:
        other = msgspec.json.decode(file.read_bytes(), type=_Other)
    except msgspec.DecodeError as error:
        accepts = f'{{"folder": a name, "share": a number}} ({error})'
        raise ConfigError("semantic.verifier", str(file), accepts) from error
    if Path(other.folder).name != other.folder:
        raise ConfigError("semantic.verifier", str(file), "a folder beside that file")
    return Joined(one, exported.verifier(folder / other.folder), other.share)


class Joined:
    """A `Verifier`; scales are those of `one`'s folder."""

    concurrency, patience = 1, 0.2

    def __init__(self, one: Verifier, other: Verifier, share: float) -> None:
        self._one, self._other, self._share = one, other, share
        self.name, self.scales = f"{one.name}+{share:g}x{other.name}", one.scales

    def logit(self, asked: str, stored: str) -> float | None:
        one = self._one.logit(asked, stored)
        other = None if one is None else self._other.logit(asked, stored)
        return None if one is None or other is None else one + self._share * other

    def close(self) -> None:
        self._one.close()
        self._other.close()
