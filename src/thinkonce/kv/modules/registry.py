"""The schemas that prompts may name: a tenant's own, and those that all share."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path

from thinkonce.errors import RequestError
from thinkonce.kv.modules.chat import Compiled

__all__ = ("Schemas",)

_MOST_A_TENANT = 64
_MOST_ROWS = 8 << 20  # tokens of scaffolds of all that are known
_MOST_SHOWN = 20


class Schemas:
    """Thread-safe. Texts alone are here; their attention state is kept, found and purged as any
    block is, and is each tenant's own. What a tenant used longest ago goes where there are many.
    """

    def __init__(self, shared: Iterable[Compiled] = (), folder: Path | None = None) -> None:
        """`folder`: below which `src` of a tenant's own may name files; None: nowhere."""
        self.folder = folder
        self._shared = {each.name: each for each in shared}
        self._own: OrderedDict[tuple[str, str], Compiled] = OrderedDict()
        self._rows = 0
        self._lock = threading.Lock()

    def add(self, tenant: str, schema: Compiled) -> None:
        """In place of the tenant's own of that name. Raises RequestError for a shared one's."""
        if schema.name in self._shared:
            accepts = "another name: all tenants share the schema that is called so"
            raise RequestError("schema", schema.name, accepts)
        rows = schema.rows  # counted once, outside the lock
        with self._lock:
            self._forget((tenant, schema.name))
            self._own[tenant, schema.name] = schema
            self._rows += rows
            names = [key for key in self._own if key[0] == tenant]
            for key in names[: max(0, len(names) - _MOST_A_TENANT)]:
                self._forget(key)
            while self._rows > _MOST_ROWS and len(self._own) > 1:
                self._forget(next(iter(self._own)))

    def find(self, tenant: str, name: str) -> Compiled:
        """Raises RequestError that names those that there are."""
        with self._lock:
            if (own := self._own.get((tenant, name))) is not None:
                self._own.move_to_end((tenant, name))
                return own
        if (shared := self._shared.get(name)) is not None:
            return shared
        known = ", ".join(each.name for each in self.of(tenant)[:_MOST_SHOWN])
        accepts = f"one of {known}" if known else "the name of a schema; none is known here yet"
        raise RequestError("kv_cache.schema", name, accepts)

    def remove(self, tenant: str, name: str) -> bool:
        """Forget a tenant's own; whether there was one. What was read of it is in blocks."""
        with self._lock:
            is_known = (tenant, name) in self._own
            self._forget((tenant, name))
        return is_known

    def is_shared(self, name: str) -> bool:
        """Whether it is everybody's."""
        return name in self._shared

    def of(self, tenant: str) -> list[Compiled]:
        """Those that a tenant may name, by name."""
        with self._lock:
            own = [schema for (whose, _), schema in self._own.items() if whose == tenant]
        return sorted([*own, *self._shared.values()], key=lambda each: each.name)

    @property
    def count(self) -> int:
        """Of all tenants, and shared."""
        return len(self._own) + len(self._shared)

    def _forget(self, key: tuple[str, str]) -> None:
        if (gone := self._own.pop(key, None)) is not None:
            self._rows -= gone.rows
