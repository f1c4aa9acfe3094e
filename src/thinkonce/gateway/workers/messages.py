"""What a parent and its workers say to each other. It never leaves the host."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from thinkonce.engine.refusals import Refusal
from thinkonce.gateway.numbers import Numbers
from thinkonce.gateway.team import Bounds
from thinkonce.settings import Settings

__all__ = (
    "ASK_SECONDS",
    "CHANNEL",
    "GRACE_SECONDS",
    "Adopt",
    "Begin",
    "Begun",
    "Cover",
    "Done",
    "Draining",
    "Failed",
    "Known",
    "Message",
    "ModelState",
    "Publish",
    "Resize",
    "Stopped",
    "Sum",
    "WhyNot",
)

# Names the descriptor over which a worker and its parent talk.
CHANNEL = "THINKONCE__CHANNEL"
# A worker waits so long for an answer; other workers get a part of it.
ASK_SECONDS = 2.0
# Beside the time to drain: to flush what was stored, and to go.
GRACE_SECONDS = 10.0


class Begin(msgspec.Struct, tag=True):
    """The first word of a parent: all that a worker needs to know.

    `listeners` and `board` are descriptors that the worker has inherited; the listener at `place`
    is its own. `run` names the gateway, `serial` this start of a worker; both enter request ids.
    """

    settings: Settings
    place: int
    run: str
    serial: int
    listeners: list[int]
    board: int
    bounds: Bounds
    restarting: bool


class Begun(msgspec.Struct, tag=True):
    """The worker accepts connections."""


class Failed(msgspec.Struct, tag=True):
    """The worker cannot begin. `setting`, `got` and `accepts` are a ConfigError's."""

    error: str
    setting: str = ""
    got: str | None = None  # None: nothing was given
    accepts: str = ""


class Draining(msgspec.Struct, tag=True):
    """The worker accepts nothing more; so many answers are under way."""

    answers: int


class Stopped(msgspec.Struct, tag=True):
    """The worker has ended, and gave up so many answers."""

    given_up: int


class Publish(msgspec.Struct, tag=True):
    """What the worker has counted, in case nobody can ask it any more."""

    numbers: Numbers


class Sum(msgspec.Struct, tag=True):
    """From a worker, with its own numbers: add up all others'. To a worker: what are yours?

    As an answer: the numbers that were asked for.
    """

    numbers: Numbers | None = None


class Resize(msgspec.Struct, tag=True):
    """Bounds of all workers together."""

    bounds: Bounds


class Adopt(msgspec.Struct, tag=True):
    """New settings, for what begins from now on."""

    settings: Settings


class WhyNot(msgspec.Struct, tag=True):
    """Why was the answer for this key not stored?"""

    digest: bytes


class Known(msgspec.Struct, tag=True):
    """An answer to `WhyNot`."""

    refusal: Refusal | None


class Cover(msgspec.Struct, tag=True):
    """Accept on the listeners at these places as well, for workers that are not there."""

    places: list[int]


class ModelState(msgspec.Struct, tag=True):
    """Whether the local model is being started again."""

    restarting: bool


class Done(msgspec.Struct, tag=True):
    """As an answer: it is done, or why not."""

    error: str = ""


Message: TypeAlias = (
    Begin | Begun | Failed | Draining | Stopped | Publish | Sum | Resize | Adopt
    | WhyNot | Known | Cover | ModelState | Done
)  # fmt: skip
