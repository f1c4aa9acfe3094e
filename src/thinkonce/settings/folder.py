"""Where a user's files lie on this machine: the one place that knows the platform's habit."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ("data_folder", "default_store_url")


def data_folder(chosen: str = "") -> Path:
    """The folder for the default store and converted models; it need not exist yet.

    `chosen` ([data] dir) or THINKONCE_DATA_DIR decide. Otherwise `%LOCALAPPDATA%\\thinkonce` on
    Windows, `~/Library/Application Support/thinkonce` on macOS, and elsewhere what the XDG base
    directory specification says (`$XDG_DATA_HOME`, else `~/.local/share`).
    """
    if chosen := chosen or os.environ.get("THINKONCE_DATA_DIR", ""):
        return Path(chosen).expanduser().absolute()
    return _platform_folder() / "thinkonce"


def default_store_url(folder: Path) -> str:
    return f"sqlite:///{folder / 'answers.db'}"


def _platform_folder() -> Path:
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    if sys.platform == "darwin":
        return home / "Library" / "Application Support"
    xdg = os.environ.get("XDG_DATA_HOME", "")
    # The specification says that a relative value is to be ignored.
    return Path(xdg) if os.path.isabs(xdg) else home / ".local" / "share"
