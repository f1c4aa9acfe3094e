"""Which store a command looks into: a gateway's, the one named, or the one configured."""

from __future__ import annotations

from pathlib import Path

from thinkonce.cli.gateway_view import GatewayView
from thinkonce.cli.view import StoreView
from thinkonce.errors import ConfigError
from thinkonce.settings import Settings, Sources

__all__ = ("chosen_settings", "open_view")


def open_view(store: str | None, url: str | None, config: Path | None) -> StoreView:
    """`url` or `store` where given (not both), else the configured store. Raises ConfigError."""
    settings = chosen_settings(store, url, config)
    if url is not None:
        return GatewayView(url, settings.admin.token)
    # Only here, because most commands open no store.
    from thinkonce.cli.store_view import StoreFileView

    return StoreFileView(settings.store)


def chosen_settings(store: str | None, url: str | None, config: Path | None) -> Settings:
    """What is configured, with `store` in place of its store. Raises ConfigError for both."""
    if url is not None and store is not None:
        raise ConfigError("--store", store, "either --store or --url, not both")
    return Sources(config=config, flags={"store.url": store}).load()
