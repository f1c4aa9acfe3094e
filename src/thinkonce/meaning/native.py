"""The order in which two native libraries are loaded, because the other order ends the process.

Both the verifier's `onnxruntime` (seen with 1.24 to 1.32) and the index's `usearch` (2.26) hold a
C++ standard library that shares symbols across the process. With usearch loaded first, importing
onnxruntime is a segmentation fault; with onnxruntime first both work.
"""

from __future__ import annotations

import sys
from contextlib import suppress

from thinkonce.errors import ConfigError

__all__ = ("onnxruntime_before_usearch", "refuse_after_usearch")


def onnxruntime_before_usearch() -> None:
    """To be called before either is imported. 0.2 s and 20 MiB where onnxruntime is installed.

    Does nothing about a process that loaded usearch itself; see `refuse_after_usearch`.
    """
    if not _too_late():
        with suppress(ImportError):
            import onnxruntime  # noqa: F401


def refuse_after_usearch(setting: str, value: str) -> None:
    """Raises ConfigError where importing onnxruntime would end the process."""
    if _too_late():
        accepts = "a program that imports onnxruntime before usearch (the other order crashes)"
        raise ConfigError(setting, value, accepts)


def _too_late() -> bool:
    return "usearch.compiled" in sys.modules and "onnxruntime" not in sys.modules
