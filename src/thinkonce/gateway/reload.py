"""A new configuration for a running gateway: what may change changes, the rest is named.

SIGHUP ──► read again ──► wrong: one line, everything stays as it was
               │
               ▼
            settle ──► what cannot change keeps its value, and is named
               │
               ▼
            adopt: whatever begins from now on. What has begun ends as it began.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from thinkonce.errors import ConfigError
from thinkonce.settings import Settings, Upstream
from thinkonce.settings.load import sections
from thinkonce.settings.read import fields_of

__all__ = ("FIXED", "Reload", "changes", "settle")

log = logging.getLogger("thinkonce")

# "section.name" of what its definition says only a restart changes.
FIXED = frozenset(
    f"{section}.{name}"
    for section, kind in sections().items()
    for name, field in fields_of(kind).items()
    if field.fixed
)


class Reload:
    """Call it to read the configuration again. Belongs to the gateway's event loop.

    `read` gives the settings as they are written now, `adopt` puts them in force; both may raise
    ConfigError, and `adopt` has then changed nothing.
    """

    def __init__(
        self, settings: Settings, read: Callable[[], Settings], adopt: Callable[[Settings], None]
    ) -> None:
        self._settings, self._read, self._adopt = settings, read, adopt

    def __call__(self) -> None:
        try:
            written = self._read()
            settled = settle(self._settings, written)
            changed = changes(self._settings, settled)
            self._adopt(settled)
        except ConfigError as wrong:
            log.error("SIGHUP: the configuration stays as it was: %s", wrong)  # noqa: TRY400 - a line, not a trace
            return
        except Exception:
            log.exception("SIGHUP: the configuration stays as it was")
            return
        self._settings = settled
        log.info("SIGHUP: reloaded, changed: %s", ", ".join(changed) or "nothing")
        for name in changes(settled, written):
            log.warning("SIGHUP: %s needs a restart to change", name)


def settle(old: Settings, new: Settings) -> Settings:
    """`new`, but the FIXED settings as in `old`."""
    kept: dict[str, msgspec.Struct] = {}
    for path in sorted(FIXED):
        section, name = path.split(".")
        current = kept.get(section, getattr(new, section))
        value = getattr(getattr(old, section), name)
        kept[section] = msgspec.structs.replace(current, **{name: value})
    return msgspec.structs.replace(new, **kept)


def changes(old: Settings, new: Settings) -> list[str]:
    """The names of what differs, such as `cache.ttl` and `upstreams.main (gone)`; never a value."""
    found = []
    for section, before in msgspec.structs.asdict(old).items():
        was, is_now = _members(before), _members(getattr(new, section))
        names = sorted(was.keys() | is_now.keys())
        found += [
            f"{section}.{name}{_fate(name, was, is_now)}"
            for name in names
            if was.get(name) != is_now.get(name)
        ]
    if _are_reordered(old.upstreams, new.upstreams):
        found.append("upstreams (their order)")
    return found


def _fate(name: str, was: dict[str, object], is_now: dict[str, object]) -> str:
    if name not in is_now:
        return " (gone)"
    return "" if name in was else " (new)"


def _are_reordered(old: dict[str, Upstream], new: dict[str, Upstream]) -> bool:
    """Whether pools that stay come in another order: the first that fits a model gets it."""
    return [name for name in old if name in new] != [name for name in new if name in old]


def _members(section: object) -> dict[str, object]:
    if isinstance(section, msgspec.Struct):
        return msgspec.structs.asdict(section)
    assert isinstance(section, dict), "a table of tables"
    return section
