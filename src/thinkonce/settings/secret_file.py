"""Secrets that lie in files, as containers and systemd hand them in: NAME_FILE in place of NAME."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from thinkonce.errors import ConfigError

__all__ = ("SUFFIX", "secret_in", "secret_of")

SUFFIX = "_FILE"
_MOST = 64 * 1024  # bytes; no secret is longer


def secret_in(variable: str, environ: Mapping[str, str]) -> str:
    """What `variable` holds, or the file that `variable`_FILE names; "" for neither.

    Raises ConfigError for both, and for a file that cannot be read.
    """
    named = environ.get(variable + SUFFIX, "")
    if not named:
        return environ.get(variable, "").strip()
    if environ.get(variable):
        accepts = f"it, or {variable}, not both"
        raise ConfigError(variable + SUFFIX, named, accepts)
    return secret_of(variable + SUFFIX, named)


def secret_of(written: str, path: str) -> str:
    """The text of a file, without white space around it. `written` names it in errors."""
    try:
        with Path(path).expanduser().open("rb") as file:
            raw = file.read(_MOST + 1)
        text = raw.decode().strip()
    except (OSError, UnicodeDecodeError, RuntimeError) as error:
        raise ConfigError(written, path, f"a readable file ({error})") from None
    if not text or len(raw) > _MOST:
        raise ConfigError(written, path, "a file that holds the secret and nothing else")
    return text
