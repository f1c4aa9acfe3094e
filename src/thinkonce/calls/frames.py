"""What a traceback shows of this package: nothing, where it was the decorated function that raised.

Between a caller and its function lie a dozen frames of the flow. Who reads the traceback of a model
that failed looks for the call and for the line that raised, as without a cache.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

__all__ = ("leave_out_ours",)

_OURS = (
    f"{Path(__file__).parent.parent}{os.sep}",
    "<thinkonce ",
)  # files, and the text that is compiled


def leave_out_ours(error: BaseException) -> None:
    """Take our frames out of the traceback of `error`, unless the last of them raised it.

    A fault of our own keeps all of them.
    """
    found = list(_frames(error.__traceback__))
    if not found or _is_ours(found[-1]):
        return
    kept: TracebackType | None = None
    for each in reversed(found):
        if not _is_ours(each):
            kept = TracebackType(kept, each.tb_frame, each.tb_lasti, each.tb_lineno)
    error.__traceback__ = kept


def _frames(traceback: TracebackType | None) -> Iterator[TracebackType]:
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next


def _is_ours(each: TracebackType) -> bool:
    return each.tb_frame.f_code.co_filename.startswith(_OURS)
