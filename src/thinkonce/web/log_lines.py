"""Log lines on stderr as both servers write them: the times are those of the access log.

What others chose to say (a path, an upstream's error) may be in a line, and never begins another:
control characters are escaped, and what has lines of its own, a trace, is set in.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Literal

__all__ = ("Form", "Probes", "formatter", "log_to_stderr", "printable", "write_as")

Form = Literal["text", "json"]
_PROBES = tuple(f"{m} {p}" for m in ("GET", "HEAD") for p in ("/healthz", "/readyz", "/metrics"))


def formatter(who: str = "", form: Form = "text") -> logging.Formatter:
    """`TIME LEVEL message`, the time RFC 3339 in UTC with milliseconds; `who` before all else.

    `form` "json": an object a line, with the same and the logger's name.
    """
    return _Json(who) if form == "json" else _Text(who)


def log_to_stderr(level: str, who: str = "", form: Form = "text") -> None:
    """Write what this package logs from `level` on, and what others warn of.

    Does nothing but set the level where the program has handlers of its own.
    """
    logger, root = logging.getLogger("thinkonce"), logging.getLogger()
    logger.setLevel(level.upper())
    if not logger.hasHandlers():
        handler = _Stderr(sys.stderr)
        handler.who = who
        handler.setFormatter(formatter(who, form))
        root.addHandler(handler)
        logging.captureWarnings(True)


def write_as(form: Form) -> None:
    """Write in this form from now on, where `log_to_stderr` has set up the writing."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _Stderr):
            handler.setFormatter(formatter(handler.who, form))


def printable(text: str) -> str:
    """`text` with every character escaped that a terminal or a reader of lines could act upon."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


class Probes:
    """Which requests of probes and scrapes are worth a line: one whose answer has another status
    than the last one of its kind. A probe every two seconds would be most of a quiet server's log.
    """

    def __init__(self) -> None:
        self._last = dict.fromkeys(_PROBES, 0)

    def is_news(self, what: str, status: int) -> bool:
        """Of `METHOD PATH`, which may be no probe: then always."""
        last = self._last.get(what)
        if last is None:
            return True
        self._last[what] = status
        return status != last


class _Stderr(logging.StreamHandler):  # type: ignore[type-arg]  # generic in stubs only
    who = ""


class _Text(logging.Formatter):
    def __init__(self, who: str) -> None:
        head = f"{who} | " if who else ""
        line = f"{head}%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s"
        super().__init__(line, "%Y-%m-%dT%H:%M:%S")
        self.converter = time.gmtime

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:
        lines = super().formatException(ei).splitlines()  # type: ignore[arg-type]
        return "\n".join(f"  {printable(line)}" for line in lines)


class _Json(logging.Formatter):
    def __init__(self, who: str) -> None:
        super().__init__(datefmt="%Y-%m-%dT%H:%M:%S")
        self._who, self.converter = who, time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        at = f"{self.formatTime(record, self.datefmt)}.{int(record.msecs):03d}Z"
        line = {"time": at, "level": record.levelname.lower(), "logger": record.name}
        if self._who:
            line["process"] = self._who
        line["message"] = record.getMessage()
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)  # ASCII alone: nothing in it that a terminal could act upon
