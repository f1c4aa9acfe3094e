"""`POST /kv/limits`: memory, disk, answers at a time and the line, while the server runs."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from thinkonce.errors import RequestError
from thinkonce.kv.engine import KvEngine
from thinkonce.kv.serving.line.scheduler import Scheduler
from thinkonce.kv.serving.requests.wrong import decoded

__all__ = ("Limits", "change_limits")


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may be changed; null and absent leave it as it is. `memory` and `disk` in bytes."""

    memory: Annotated[int, Meta(ge=1)] | None = None
    disk: Annotated[int, Meta(ge=1, le=2**62)] | None = None
    sequences: Annotated[int, Meta(ge=1, le=64)] | None = None
    queue: Annotated[int, Meta(ge=0, le=10_000)] | None = None
    queue_tokens: Annotated[int, Meta(ge=1)] | None = None


def change_limits(body: bytes, engine: KvEngine, line: Scheduler) -> tuple[Limits, dict[str, Any]]:
    """Change what the body names; that, and how things stand then. Raises RequestError."""
    wanted = decoded(body, Limits)
    if wanted.disk is not None:
        engine.resize_disk(wanted.disk)
    if wanted.memory is not None:
        engine.resize(wanted.memory)
    if wanted.sequences is not None and not engine.keeps:
        accepts = "nothing; this model's state is not reused, so it answers one at a time"
        raise RequestError("sequences", wanted.sequences, accepts)
    line.resize(
        max_waiting=wanted.queue, sequences=wanted.sequences, max_tokens=wanted.queue_tokens
    )
    return wanted, {**engine.stats(), "line": line.stats()}
