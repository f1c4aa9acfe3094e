"""Who may ask a model server that knows its clients, and how much: the table `[clients]`.

    request ──► whose key is it? ──► nobody's: 401
                     │
                     ▼
                its model ──► not this client's: 403
                     │
                     ▼
             place among its requests under way ──► none free: 429
                     │
                     ▼
                allowance ──► used up: 429

The same table as the gateway's, of which it reads what does not concern answers that are kept:
one file may serve both. A server that knows no clients serves everybody who reaches it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import NamedTuple

from thinkonce.clock import SYSTEM, Clock
from thinkonce.request.headers import SECRETS, digest_of
from thinkonce.settings import Client
from thinkonce.web.allowance import Allowance
from thinkonce.web.exchange import Header
from thinkonce.web.refusals import beyond_limit, model_not_allowed, unknown_key

__all__ = ("ANYBODY", "NOBODY_KNOWN", "Access", "Clients", "KnownClient")

NOBODY_KNOWN: Mapping[str, Client] = MappingProxyType({})


class Access(NamedTuple):
    """Who may ask, and what callers show who change what is kept, or look into it: `[clients]` and
    `[admin] token`. Nobody known: everybody may; "": who is on this machine may.
    """

    clients: Mapping[str, Client] = NOBODY_KNOWN
    admin_token: str = ""


ANYBODY = Access()


class KnownClient:
    """One of `[clients]`. Belongs to one event loop."""

    def __init__(self, row: Client, clock: Clock) -> None:
        self.row = row
        limit = row.rate_limit
        self._allowance = None if limit is None else Allowance(limit, clock)
        self._under_way = 0

    @property
    def shares_as(self) -> bytes:
        """What stands for all whose attention state it shares."""
        group, key = self.row.group, self.row.key_sha256
        return b"group " + group.encode() if group else b"key " + key.encode()

    @contextmanager
    def request(self, model: str) -> Iterator[None]:
        """Around one request and its answer. Raises HttpError 403 and 429."""
        self._check_model(model)
        most, allowance = self.row.max_concurrent, self._allowance
        if most is not None and self._under_way >= most:
            may = f"have {most} requests under way at a time"
            raise beyond_limit("max_concurrent", may, "concurrency_limit_exceeded")
        if allowance is not None and not allowance.take():
            may = f"make {allowance.per_minute} requests a minute"
            seconds = allowance.seconds_to_one()
            raise beyond_limit("rate_limit", may, "rate_limit_exceeded", seconds)
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    def _check_model(self, model: str) -> None:
        may = self.row.models
        if may and not any(fnmatchcase(model, pattern) for pattern in may):
            raise model_not_allowed("model", f"{model!r:.80} is not allowed", may)


class Clients:
    """All known clients, by the digests of their keys. Belongs to one event loop."""

    def __init__(self, rows: Mapping[str, Client] = NOBODY_KNOWN, clock: Clock = SYSTEM) -> None:
        self._known, self._clock = dict[str, KnownClient](), clock
        self.adopt(rows)

    def adopt(self, rows: Mapping[str, Client]) -> None:
        """These are all from now on. Who stays as it was keeps what is left of its allowance."""
        known = self._known
        self._known = {
            row.key_sha256: was
            if (was := known.get(row.key_sha256)) is not None and was.row == row
            else KnownClient(row, self._clock)
            for row in rows.values()
        }

    def __bool__(self) -> bool:
        """Whether only known ones may ask."""
        return bool(self._known)

    def of(self, headers: Iterable[Header]) -> KnownClient:
        """The client whose key is among `headers`. Raises HttpError 401."""
        secrets = [value for name, value in headers if name in SECRETS]
        # More than one in each header are no keys, and are not worth a digest each.
        few = secrets if len(secrets) <= len(SECRETS) else ()
        for value in few:
            if found := self._known.get(digest_of(value)):
                return found
        raise unknown_key("server")
