"""Log lines on stderr as both servers write them: the times are those of the access log."""

from __future__ import annotations

import logging
import sys
import time

__all__ = ("formatter", "log_to_stderr")


def formatter(who: str = "") -> logging.Formatter:
    """`TIME LEVEL message`, the time RFC 3339 in UTC with milliseconds; `who` before all else."""
    head = f"{who} | " if who else ""
    lines = logging.Formatter(
        f"{head}%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S"
    )
    lines.converter = time.gmtime
    return lines


def log_to_stderr(level: str, who: str = "") -> None:
    """Write what this package logs from `level` on, unless the program has handlers of its own."""
    logger = logging.getLogger("thinkonce")
    logger.setLevel(level.upper())
    if not logger.hasHandlers():
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(formatter(who))
        logger.addHandler(handler)
