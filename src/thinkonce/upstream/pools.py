"""Who can answer: pools of equivalent servers, chosen by the model's name.

A pool is part of every key made for it, so it is chosen before anything is looked up. Which of
its servers then answers is routing, and changes nothing in the key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from thinkonce.errors import ConfigError
from thinkonce.settings import Upstream
from thinkonce.settings.secret_file import secret_in
from thinkonce.upstream.budget import Budget
from thinkonce.upstream.failure import Header
from thinkonce.upstream.line import Line
from thinkonce.upstream.room import Room, Rooms
from thinkonce.upstream.server import Base, Server, base_url

__all__ = ("Base", "Pool", "Pools", "base_url")

_PATTERN = frozenset("*?[")


class Pool:
    """Servers declared equivalent. `name` is the identity that enters keys.

    Belongs to one event loop, except for what was declared. `ask_usage`: its servers may be asked
    for the usage chunk on behalf of a client that did not.
    """

    def __init__(self, name: str, declared: Upstream, rooms: Rooms | None = None) -> None:
        self.name, self.declared = name, declared
        self.models, self.ask_usage = tuple(declared.models), declared.ask_usage
        weights = declared.weights or [1.0] * len(declared.urls)
        self.servers = tuple(
            Server(
                base_url(url),
                weight,
                room=_room(rooms, name, url, declared.max_concurrent),
                failures=declared.breaker_failures,
                pause=declared.breaker_pause,
            )
            for url, weight in zip(declared.urls, weights, strict=True)
        )
        self.credential: tuple[Header, ...] = ()  # the gateway's own; none: the client's is sent
        self.budget = Budget(declared.retry_budget)
        self.line = Line(name, declared.max_waiting)
        self._lead = [0.0] * len(self.servers)

    def __repr__(self) -> str:
        return f"Pool({self.name!r})"

    def take_key(self, environ: Mapping[str, str]) -> None:
        """Use the key that `api_key_env` names, be it in a file that the same name and _FILE

        names. Raises ConfigError where there is none.
        """
        variable = self.declared.api_key_env
        if not variable:
            return
        key = secret_in(variable, environ)
        if not (key.isascii() and key.isprintable() and key):
            where = f"[upstreams.{self.name}] api_key_env"
            raise ConfigError(where, variable, "the name of a variable that is set to a key")
        if self.declared.dialect == "anthropic":
            self.credential = ((b"x-api-key", key.encode()),)
        else:
            self.credential = ((b"authorization", b"Bearer " + key.encode()),)

    def is_as(self, other: Pool) -> bool:
        """Whether nothing that was declared differs."""
        return self.declared == other.declared and self.credential == other.credential

    def serves(self, model: str) -> bool:
        return any(fnmatchcase(model, pattern) for pattern in self.models)

    def in_turn(self) -> Sequence[Server]:
        """All servers in the order in which one request tries them.

        Weighted: each comes first in its share of the requests, spread evenly. A server's lead
        grows by its weight at each turn, and who leads pays the sum of all weights (nginx's
        smooth weighted round robin).
        """
        servers = self.servers
        if len(servers) == 1 or self.declared.choice == "ordered":
            return servers
        lead = self._lead
        for place, server in enumerate(servers):
            lead[place] += server.weight
        first = max(range(len(servers)), key=lead.__getitem__)
        lead[first] -= sum(server.weight for server in servers)
        return servers[first:] + servers[:first]


class Pools:
    """The pools of a gateway, in the order of its configuration."""

    def __init__(self, pools: Iterable[Pool]) -> None:
        self.all = tuple(pools)
        self._one = self.all[0] if len(self.all) == 1 and self.all[0].models == ("*",) else None
        self._exact: dict[str, Pool] = {}
        for pool in self.all:
            for model in pool.models:
                if not _PATTERN & set(model):
                    self._exact.setdefault(model, pool)

    @classmethod
    def of(cls, upstreams: Mapping[str, Upstream], rooms: Rooms | None = None) -> Pools:
        """`rooms` None: nobody else counts in what servers get at a time."""
        return cls(Pool(name, upstream, rooms) for name, upstream in upstreams.items())

    def take_keys(self, environ: Mapping[str, str]) -> None:
        """Use the keys that the environment holds for these pools. Raises ConfigError."""
        for pool in self.all:
            pool.take_key(environ)

    def keeping(self, former: Pools) -> Pools:
        """These pools; one declared as it was goes on as it is: who is down stays known."""
        kept = {pool.name: pool for pool in former.all}
        return Pools(
            kept[pool.name] if pool.name in kept and kept[pool.name].is_as(pool) else pool
            for pool in self.all
        )

    def for_model(self, model: str) -> Pool | None:
        """The pool that names `model`, else the first whose patterns fit; None: nobody serves it.

        The first of all for a request without a model.
        """
        if self._one is not None:
            return self._one
        if not model:
            return self.all[0]
        exact = self._exact.get(model)
        if exact is not None:
            return exact
        return next((pool for pool in self.all if pool.serves(model)), None)

    def fallbacks(self, pool: Pool) -> tuple[Pool, ...]:
        """Who may answer where `pool` cannot, in order."""
        if not pool.declared.fallback:
            return ()
        by_name = {each.name: each for each in self.all}
        return tuple(by_name[name] for name in pool.declared.fallback if name in by_name)

    def patterns(self) -> tuple[str, ...]:
        return tuple(pattern for pool in self.all for pattern in pool.models)


def _room(rooms: Rooms | None, pool: str, url: str, most: int | None) -> Room:
    if most is None:
        return Room()
    return Room(most) if rooms is None else rooms(pool, url, most)
