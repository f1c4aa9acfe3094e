"""Where a user's data lies on this machine: the one place that knows the platform's habit."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ("data_folder",)


def data_folder() -> Path:
    """The folder for converted models and stores; it need not exist yet.

    `THINKONCE_DATA_DIR` overrides. Otherwise `%LOCALAPPDATA%\\thinkonce` on Windows,
    `~/Library/Application Support/thinkonce` on macOS, and what the XDG base directory
    specification says elsewhere (`$XDG_DATA_HOME`, else `~/.local/share`).
    """
    if chosen := os.environ.get("THINKONCE_DATA_DIR"):
        return Path(chosen).expanduser().absolute()
    return _platform_folder() / "thinkonce"


def _platform_folder() -> Path:
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    if sys.platform == "darwin":
        return home / "Library" / "Application Support"
    xdg = os.environ.get("XDG_DATA_HOME", "")
    # The specification says that a relative value is to be ignored.
    return Path(xdg) if os.path.isabs(xdg) else home / ".local" / "share"
