"""What was purged: from then on, attention state of those owners has other names.

A purge is a rule with a stamp of its own. The stamps of all rules that an owner falls under are
its era, which enters the names of its blocks: so a purge holds at once in every tier and for
writes that come late, and with a file also after a restart and in every process that shares it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import NamedTuple

import msgspec

from thinkonce.errors import ConfigError
from thinkonce.kv.prefix.owner import ANY_DOCUMENT, Owner

__all__ = ("MOST_RULES", "PLAIN", "PurgeRule", "Purges", "Sealing")

_logger = logging.getLogger("thinkonce.kv")

MOST_RULES = 1024
"""With more, one rule for everything takes the place of all."""


class PurgeRule(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Whose state is purged: that of owners for whom every named field holds; none: of all.

    `tenant`: as a gateway names it, or as `Owner` has it. `document`: in what a prompt says, as far
    as it was marked. `tags`: one of them suffices, and so does a document of such a name.
    """

    tenant: str | None = None
    namespace: str | None = None
    tags: tuple[str, ...] = ()
    document: str | None = None

    def holds(self, owner: Owner) -> bool:
        documents = owner.documents
        if self.document is not None and self.document not in documents:
            # Most rules are of one document: they are asked for each request.
            return documents == ANY_DOCUMENT and self._without_document.holds(owner)
        names = (owner.tenant, owner.tenant.partition(" ")[2])
        return (
            (self.tenant is None or self.tenant in names)
            and (self.namespace is None or self.namespace == owner.namespace)
            and (not self.tags or self._has_tag(owner))
        )

    @property
    def _without_document(self) -> PurgeRule:
        return msgspec.structs.replace(self, document=None)

    def _has_tag(self, owner: Owner) -> bool:
        found = {*owner.tags, *owner.documents}
        return owner.documents == ANY_DOCUMENT or not found.isdisjoint(self.tags)


class _Stamped(msgspec.Struct, frozen=True):
    rule: PurgeRule
    stamp: str


_decode = msgspec.json.Decoder(list[_Stamped]).decode


class Sealing(NamedTuple):
    """What is done to the file's bytes. `open` raises ValueError for what was not sealed so;
    `is_current` is false for bytes that are to be sealed anew.
    """

    seal: Callable[[bytes], bytes]
    open: Callable[[bytes], bytes]
    is_current: Callable[[bytes], bool]


PLAIN = Sealing(bytes, bytes, lambda data: True)


class Purges:
    """`path`: where they are kept; None: with the process. Thread-safe.

    Raises ConfigError, at the start alone, for a file that cannot be read: what it forbids would
    be found again.
    """

    def __init__(self, path: Path | None = None, sealing: Sealing = PLAIN) -> None:
        self._path, self._seen, self._sealing = path, (0, 0, 0), sealing
        self._rules: tuple[_Stamped, ...] = ()
        self._unwritten: tuple[_Stamped, ...] = ()
        self._lock = threading.Lock()
        # Told of other processes' rules that may be about documents: who does not mark one asks
        # for the same names as before.
        self.told: Callable[[PurgeRule], object] = lambda rule: None
        try:
            self._follow()
            if path is not None and path.exists() and not sealing.is_current(path.read_bytes()):
                with self._alone():
                    self._follow()
                    self._write(self._rules)
        except (OSError, ValueError) as error:
            raise ConfigError("[kv] store", str(path), f"a file of purges ({error})") from None

    def era_of(self, owner: Owner) -> Owner:
        """`owner` as it is called now."""
        with self._lock:
            try:
                self._follow()
            except (OSError, ValueError) as error:
                _logger.warning("purges of other processes are not seen: %s", error)
            rules = (*self._rules, *self._unwritten)
        stamps = [each.stamp for each in rules if each.rule.holds(owner)]
        return replace(owner, era=" ".join(stamps)) if stamps else owner

    def add(self, rule: PurgeRule) -> None:
        """From now on. Raises OSError where it cannot be written: then it ends with the process."""
        stamped = _Stamped(rule, secrets.token_hex(8))
        with self._lock:
            self._unwritten = _with(self._unwritten, stamped)  # it holds, whatever fails from here
            with self._alone():
                try:
                    self._follow()
                except ValueError as error:
                    raise OSError(f"{self._path}: {error}") from error
                rules = reduce(_with, self._unwritten, self._rules)
                self._write(rules)
            self._rules, self._unwritten = rules, ()

    def _follow(self) -> None:
        """Take in what another process has written."""
        if self._path is None:
            return
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return
        seen = (found.st_ino, found.st_mtime_ns, found.st_size)
        if seen != self._seen:
            known = {each.stamp for each in (*self._rules, *self._unwritten)}
            self._rules = tuple(_decode(self._sealing.open(self._path.read_bytes())))
            self._seen = seen
            for each in self._rules:
                if each.stamp not in known and (each.rule.document or each.rule.tags):
                    self.told(each.rule)

    def _write(self, rules: tuple[_Stamped, ...]) -> None:
        if self._path is None:
            return
        made = self._path.with_suffix(f".{secrets.token_hex(8)}")
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(self._sealing.seal(msgspec.json.encode(rules)))
                file.flush()
                os.fsync(file.fileno())
            made.replace(self._path)
        finally:
            made.unlink(missing_ok=True)
        _sync_folder(self._path.parent)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process changes the file meanwhile."""
        if self._path is None:
            yield
            return
        lock = self._path.with_suffix(".lock")
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _with(rules: tuple[_Stamped, ...], added: _Stamped) -> tuple[_Stamped, ...]:
    kept = tuple(each for each in rules if each.rule != added.rule)
    if added.rule == PurgeRule() or len(kept) >= MOST_RULES:
        return (_Stamped(PurgeRule(), added.stamp),)
    return (*kept, added)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
