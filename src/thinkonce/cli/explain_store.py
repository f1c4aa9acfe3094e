"""A request explained against a store's file, as the gateway that fills it would read it."""

from __future__ import annotations

from thinkonce.cli.import_file import tenant_named
from thinkonce.cli.store_shelf import opened_shelf
from thinkonce.engine.endpoints import readers, rules_of
from thinkonce.errors import MISSING, ConfigError
from thinkonce.gateway.admin.explain import asked_in, explain_request
from thinkonce.insight.explained import Explained
from thinkonce.selector import Selector
from thinkonce.settings import Settings, Upstream
from thinkonce.shelf import Shelf
from thinkonce.upstream.pools import Pool, Pools

__all__ = ("explain_in_store",)

MOST_LOOKED_AT = 2000


def explain_in_store(
    settings: Settings, raw: bytes, endpoint: str, headers: dict[str, str]
) -> Explained:
    """Why it was not stored last time is known to a running gateway only.

    Raises ConfigError, HttpError, RequestError, TierError.
    """
    sent = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    sent = [pair for pair in sent if not pair[0].startswith(b"x-thinkonce-")]
    asked = asked_in(raw, endpoint, sent)
    with opened_shelf(settings, rules_of(settings)) as shelf:
        reads = readers(settings, _pools(settings, shelf, asked.endpoint), shelf)
        named = tenant_named(shelf, settings, headers)
        tenant = "" if named is None else named(asked.endpoint)
        return explain_request(reads, shelf, asked, sent, tenant)


def _pools(settings: Settings, shelf: Shelf, endpoint: str) -> Pools:
    """As configured; for a gateway that was started with --upstream, the one that entries name."""
    if settings.upstreams:
        return Pools.of(settings.upstreams)
    found = shelf.entries(Selector(scope=endpoint), MOST_LOOKED_AT)
    names = sorted({entry.meta.source for entry in found if entry.meta.source})
    if len(names) == 1:
        return Pools([Pool(names[0], Upstream(urls=[]))])
    accepts = "[upstreams] in thinkonce.toml, since the pool is part of every key"
    raise ConfigError("upstreams", ", ".join(names) or MISSING, accepts)
