"""`kv purge`: forget attention state, in memory and on disk."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from thinkonce.cli.kv_tree import MOST_BRANCHES, SHOWN_OWNER
from thinkonce.cli.model_view import MODEL_SERVER, ModelUrl, ModelView
from thinkonce.cli.options import AsJson, Config
from thinkonce.cli.output import print_json, show_bytes
from thinkonce.errors import ConfigError
from thinkonce.settings import Sources

__all__ = ("kv_purge",)


def kv_purge(
    url: ModelUrl = MODEL_SERVER,
    document: Annotated[
        str | None, typer.Option("--document", help="What contains the document of this id.")
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", help="What has this tag; may be repeated.")
    ] = None,
    namespace: Annotated[str | None, typer.Option(help="What is in this namespace.")] = None,
    tenant: Annotated[
        str | None, typer.Option(help="What is this tenant's, as `kv ls` shows it.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything.")] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Forget what a model server keeps; what is named must all hold, of tags one suffices."""
    named = {"document": document, "tags": tag, "namespace": namespace, "tenant": tenant}
    body: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    if everything:
        body["all"] = True
    if not body:
        accepts = "--document, --tag, --namespace, --tenant or --all"
        raise ConfigError("what to purge", "nothing", accepts)
    with ModelView(url, Sources(config=config).load().admin.token) as view:
        if tenant is not None:
            body["tenant"] = _in_full(tenant, view)
        told = view.forget(body)
    if as_json:
        print_json(told)
        return
    print(f"{told['purged']:,} blocks in memory")
    if disk := told.get("disk"):
        left = disk["bytes_left"] and f", of which {show_bytes(disk['bytes_left'])} are left"
        print(f"{disk['blocks']:,} blocks on disk, {show_bytes(disk['bytes'])}{left or ''}")


def _in_full(tenant: str, view: ModelView) -> str:
    """What `kv ls` has cut to fit its column. A purge of half a name would purge nothing, and look
    as if there had been nothing.
    """
    if len(tenant) != SHOWN_OWNER:
        return tenant
    owners = {str(row["tenant"]) for row in view.branches(MOST_BRANCHES)}
    found = sorted(owner for owner in owners if owner.startswith(tenant))
    if len(found) > 1:
        raise ConfigError("--tenant", tenant, f"one of {', '.join(found)}")
    return found[0] if found else tenant
