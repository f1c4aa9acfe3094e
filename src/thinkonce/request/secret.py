"""The installation's secret: what keys and tenants are hashed with."""

from __future__ import annotations

from pathlib import Path

__all__ = ("fingerprint", "load_secret", "secret_path")


def secret_path(store: Path) -> Path:
    """The secret's file of a store: beside it, with `.secret` added to its name."""
    return store.with_name(store.name + ".secret")


def load_secret(setting: str = "", path: Path | None = None) -> bytes:
    """32 bytes: from `setting`, else from the file, created once, else random (memory only).

    Raises ConfigError for a setting too short, a damaged file, or one that cannot be made.
    """
    raise NotImplementedError


def fingerprint(secret: bytes) -> str:
    """16 hex digits by which two installations see whether their secrets are the same."""
    raise NotImplementedError
