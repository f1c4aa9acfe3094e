"""What stands in a store's index columns for tenants, namespaces, models, scopes and tags.

Without encryption the names themselves. With it, keyed marks (`Cipher.marks`): equal names still
have equal marks, so that purges, listings and quotas find their rows, and nobody without the key
reads the names or tests a guess. A mark begins with the id of its key, `~1a2b3c4d~`, by which rows
that another key encrypted, or none, are told.

    kind       tenant    namespace   model   scope   tag
    sealed     ~1a2b3c4d~0f1e...     (32 hex digits behind the id)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thinkonce.tiers.cipher import Cipher

__all__ = ("PLAIN", "Aliases", "entries_by_key")

ID_AT, ID_END = 2, 10  # in a mark, as SQL counts: from 1
BY_KEY = f"""
SELECT CASE WHEN f.scope LIKE '~________~%' THEN substr(f.scope, {ID_AT}, {ID_END - ID_AT})
            ELSE '' END AS id,
       (SELECT count(*) FROM entries e WHERE e.facet = f.id) AS held
FROM facets f WHERE held > 0
"""


class Aliases:
    """Thread-safe. `cipher` None: names stand for themselves."""

    def __init__(self, cipher: Cipher | None = None) -> None:
        self.cipher = cipher

    def written(self, kind: str, name: str) -> str:
        """What a new row has for `name`."""
        cipher = self.cipher
        return name if cipher is None or not cipher.seals else cipher.marks(kind, name)[0]

    def sought(self, kind: str, name: str) -> tuple[str, ...]:
        """What rows may have for `name`: those not encrypted yet, or with an older key, too."""
        cipher = self.cipher
        return (name,) if cipher is None else (*cipher.marks(kind, name), name)

    @property
    def key_id(self) -> str:
        """Of the key that new rows are encrypted with; "" for plain ones."""
        cipher = self.cipher
        return "" if cipher is None or not cipher.seals else cipher.ids[0]


PLAIN = Aliases()


def entries_by_key(rows: Callable[[str], Iterable[Any]]) -> Counter[str]:
    """How many entries each key encrypted, by its id; "" stands for plain ones."""
    found = Counter[str]()
    for key_id, held in rows(BY_KEY):
        found[key_id] += held
    return found
