"""`explain`: would a request hit, and if not, what keeps it apart from the nearest stored one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from thinkonce.cli.gateway_view import GatewayView
from thinkonce.cli.open_view import chosen_settings
from thinkonce.cli.options import AsJson, Config, StoreUrl, Url
from thinkonce.cli.output import print_json
from thinkonce.cli.whose import ApiKeyEnv, Group, Tenant, whose_headers
from thinkonce.errors import ConfigError
from thinkonce.insight.explained import Explained, paragraphs

__all__ = ("register",)


def register(app: typer.Typer) -> None:
    epilog = "Example: thinkonce explain request.json --url http://127.0.0.1:8000"
    app.command("explain", epilog=epilog)(explain)


def explain(
    file: Annotated[Path, typer.Argument(help="A request's body, or a line of a batch, as JSON.")],
    api_key_env: ApiKeyEnv = None,
    tenant: Tenant = None,
    group: Group = None,
    endpoint: Annotated[
        str, typer.Option(help="Where a bare body goes.  [default: by its fields]")
    ] = "",
    header: Annotated[
        list[str] | None, typer.Option(help="A header the client sends: 'name: value'.")
    ] = None,
    store: StoreUrl = None,
    url: Url = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Would this request hit; if not, where does it differ."""
    headers = {**_pairs(header or []), **whose_headers(api_key_env, tenant, group)}
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise ConfigError("FILE", str(file), f"a readable file ({error.strerror})") from None
    settings = chosen_settings(store, url, config)
    if url is not None:
        with GatewayView(url, settings.admin.token) as view:
            told = view.explain(raw, endpoint, headers)
    else:
        # Only here: it loads the gateway.
        from thinkonce.cli.explain_store import explain_in_store

        told = explain_in_store(settings, raw, endpoint, headers)
    _print(told, as_json=as_json)


def _print(told: Explained, *, as_json: bool) -> None:
    if as_json:
        print_json(told)
        return
    for line in paragraphs(told):
        print(line.rstrip())


def _pairs(given: list[str]) -> dict[str, str]:
    pairs = {}
    for text in given:
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            raise ConfigError("--header", text, "'name: value'")
        pairs[name.strip().lower()] = value.strip()
    return pairs
