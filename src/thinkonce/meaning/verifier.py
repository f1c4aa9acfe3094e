"""Whether one answer answers two questions: what every verifier promises, and how one is found.

A verifier reads both questions together, which is dearer and surer than comparing vectors. It is
asked about candidates that the score could not settle. One is a file in `verifiers/` and a line
here.

    shipped        a cross-encoder in eight bits: `weights/` in this package, or the
                   folder `verifier` in the data folder
    a directory    a cross-encoder: model.onnx and tokenizer.json, or as transformers saves one
    a URL          a chat model behind an OpenAI-compatible API, asked for yes or no

What a verifier says is a number that rises with the chance to be right. `calibration.json` beside
the weights says what it is worth, by language; without one it is taken as a logit, and nothing is
served before audits have certified it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Protocol

import msgspec

from thinkonce.errors import ConfigError, ThinkOnceError
from thinkonce.meaning.calibration import Curve, Tally

__all__ = (
    "CALIBRATION",
    "OFF",
    "SHIPPED",
    "Scale",
    "Scales",
    "Verifier",
    "VerifierError",
    "installed",
    "open_verifier",
    "read_scales",
)

log = logging.getLogger("thinkonce.semantic")

SHIPPED, OFF = "shipped", "off"
MODEL, TOKENIZER, CALIBRATION = "model.onnx", "tokenizer.json", "calibration.json"
WEIGHTS = Path(__file__).with_name("weights")  # of what ships, where a release holds it
ACCEPTS = (
    "shipped, off, the URL of an OpenAI-compatible API (http://HOST/v1#MODEL), or a directory "
    f"that holds a cross-encoder ({MODEL} and {TOKENIZER}, or as transformers saves one)"
)


class VerifierError(ThinkOnceError):
    """A pair could not be judged. Whoever asked goes on as if it were no match."""


class Scale(msgspec.Struct, frozen=True):
    """What a verifier's numbers are worth for one language.

    raw = logit + `score` * the logit of the first stage; `curve` makes a chance of it. `tallies`
    are what calibration saw, in logits of that chance: cuts are chosen by them. `promised`: the
    pairs they were counted on are like traffic, so that a cut may be served before any audit.
    """

    curve: Curve
    score: float = 0.0
    tallies: tuple[Tally, ...] = ()
    promised: bool = False


# By language, and by embedder and language where the first stage's score has a share: "zh",
# "use-zh".
Scales = Mapping[str, Scale]


class Verifier(Protocol):
    """Thread-safe. `logit` blocks and may raise VerifierError, or anything else once broken.

    `name` tells models and versions apart: what was learned of one says nothing of another.
    `concurrency`: how many calls at a time are of use. `patience`: seconds that a request may
    wait for it before it goes on to the model.
    """

    name: str
    concurrency: int
    patience: float
    scales: Scales

    def logit(self, asked: str, stored: str) -> float | None:
        """Rises with the chance that an answer to `stored` answers `asked`. None: too long."""
        ...

    def close(self) -> None: ...


def open_verifier(
    wanted: str = SHIPPED, *, data: Path | None = None, api_key: str = "", timeout: float = 10.0
) -> Verifier | None:
    """By name, URL or directory. None for `off`, and where what ships cannot run here.

    `data` is the data folder, `timeout` in seconds and for an API. Takes a second for a local
    model. Raises ConfigError for something else that is not there.
    """
    if wanted == OFF:
        return None
    if wanted == SHIPPED:
        return _shipped(data)
    if wanted.startswith(("http://", "https://")):
        return _made("chat")(wanted, api_key, timeout)
    folder = Path(wanted).expanduser()
    if not folder.is_dir():
        raise ConfigError("semantic.verifier", wanted, ACCEPTS)
    kind = "exported" if (folder / MODEL).is_file() else "transformer"
    return _made(kind)(folder)


def read_scales(folder: Path) -> Scales:
    """From `calibration.json`; empty where there is none. Raises ConfigError for a damaged one."""
    file = folder / CALIBRATION
    if not file.is_file():
        return {}
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, Scale])
    except msgspec.DecodeError as error:
        raise ConfigError("semantic.verifier", str(file), f"a whole file ({error})") from error


def installed(data: Path | None = None) -> Path | None:
    """Where the verifier that ships lies; None where it does not. `data` is the data folder."""
    return next((one for one in _places(data) if (one / MODEL).is_file()), None)


def _places(data: Path | None) -> list[Path]:
    return [WEIGHTS] + ([data / "verifier"] if data else [])


def _shipped(data: Path | None) -> Verifier | None:
    folder = installed(data)
    if folder is None:
        where = " or ".join(map(str, _places(data)))
        log.warning("no verifier is installed in %s: only the same plain words are answered", where)
        return None
    try:
        return _made("exported")(folder)
    except ConfigError as error:
        log.warning("the verifier is not used: %s", error)
        return None


def _made(name: str) -> Callable[..., Verifier]:
    return import_module(f"thinkonce.meaning.verifiers.{name}").verifier  # type: ignore[no-any-return]
