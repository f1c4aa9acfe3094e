"""Whether one answer answers two questions: what every verifier promises, and how one is found.

A verifier reads both questions together, which is dearer and surer than comparing vectors. It is
asked about candidates that the score could not settle. One is a file in `verifiers/` and a line of
`KINDS`.

    shipped        a cross-encoder in eight bits, and a share of the permissive one: `weights/` in
                   this package, or the folder `verifier` in the data folder
    permissive     `weights/permissive/`: weaker, trained only on texts that anybody may use
    a directory    a cross-encoder: model.onnx and tokenizer.json, or as transformers saves one
    a URL          a chat model behind an OpenAI-compatible API, asked for yes or no

What a verifier says is a number that rises with the chance to be right. `calibration.json` beside
the weights says what it is worth, by language; without one it is taken as a logit, and nothing is
served before audits have certified it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

import msgspec

from thinkonce.errors import ConfigError, ThinkOnceError
from thinkonce.meaning.verdict.calibration import Curve, Tally
from thinkonce.settings.semantic import A_MODEL_BEHIND_A_URL

__all__ = (
    "ACCEPTS",
    "CALIBRATION",
    "INCLUDED",
    "KINDS",
    "OFF",
    "PERMISSIVE",
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

SHIPPED, PERMISSIVE, OFF = "shipped", "permissive", "off"
INCLUDED = (SHIPPED, PERMISSIVE)
MODEL, TOKENIZER, CALIBRATION = "model.onnx", "tokenizer.json", "calibration.json"
WEIGHTS = Path(__file__).parent.parent / "weights"  # of what ships, where a release holds it


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
    wish = Wish(wanted, data, api_key, timeout)
    for kind in KINDS:
        if kind.claims(wanted):
            return kind.open(wish)
    raise ConfigError("semantic.verifier", wanted, ACCEPTS)


def read_scales(folder: Path) -> Scales:
    """From `calibration.json`; empty where there is none. Raises ConfigError for a damaged one."""
    file = folder / CALIBRATION
    if not file.is_file():
        return {}
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, Scale])
    except msgspec.DecodeError as error:
        raise ConfigError("semantic.verifier", str(file), f"a whole file ({error})") from error


def installed(wanted: str = SHIPPED, data: Path | None = None) -> Path | None:
    """Where the verifier of that name lies, one of those that ship; None where it does not.

    `data` is the data folder.
    """
    return next((one for one in _places(wanted, data) if (one / MODEL).is_file()), None)


def _places(wanted: str, data: Path | None) -> list[Path]:
    if wanted == PERMISSIVE:
        return [WEIGHTS / PERMISSIVE]
    return [WEIGHTS] + ([data / "verifier"] if data else [])


def _included(wish: Wish) -> Verifier | None:
    folder = installed(wish.wanted, wish.data)
    if folder is None:
        where = " or ".join(map(str, _places(wish.wanted, wish.data)))
        log.warning("no verifier is installed in %s: only the same plain words are answered", where)
        return None
    try:
        return _made("joined")(folder)
    except ConfigError as error:
        log.warning("the verifier is not used: %s", error)
        return None


def _made(name: str) -> Callable[..., Verifier]:
    return import_module(f"thinkonce.meaning.verifiers.{name}").verifier  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Wish:
    """What a verifier is opened with; see `open_verifier`."""

    wanted: str
    data: Path | None
    api_key: str
    timeout: float

    @property
    def folder(self) -> Path:
        return Path(self.wanted).expanduser()


@dataclass(frozen=True, slots=True)
class Kind:
    """`accepts` is what the setting says of it; `claims` tells whether the setting means it."""

    accepts: str
    claims: Callable[[str], bool]
    open: Callable[[Wish], Verifier | None]


# The first that claims what is wanted opens it.
KINDS = (
    Kind(SHIPPED, lambda wanted: wanted == SHIPPED, _included),
    Kind(PERMISSIVE, lambda wanted: wanted == PERMISSIVE, _included),
    Kind(OFF, lambda wanted: wanted == OFF, lambda _: None),
    Kind(
        f"a directory with {MODEL} and {TOKENIZER}",
        lambda wanted: (Path(wanted).expanduser() / MODEL).is_file(),
        lambda wish: _made("joined")(wish.folder),
    ),
    Kind(
        "a directory as transformers saves a cross-encoder",
        lambda wanted: Path(wanted).expanduser().is_dir(),
        lambda wish: _made("transformer")(wish.folder),
    ),
    Kind(
        A_MODEL_BEHIND_A_URL,
        lambda wanted: wanted.startswith(("http://", "https://")),
        lambda wish: _made("chat")(wish.wanted, wish.api_key, wish.timeout),
    ),
)
ACCEPTS = " | ".join(kind.accepts for kind in KINDS)
