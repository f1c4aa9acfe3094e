"""`reset-audits`: hits in other words that alarms switched off, begun anew."""

from __future__ import annotations

from typing import Annotated

import typer

from thinkonce.cli.open_view import open_view
from thinkonce.cli.options import AsJson, Config, StoreUrl, Url
from thinkonce.cli.output import print_json
from thinkonce.errors import MISSING, ConfigError

__all__ = ("register",)


def register(app: typer.Typer) -> None:
    app.command("reset-audits", epilog="Example: thinkonce reset-audits --namespace faq")(
        reset_audits
    )


def reset_audits(
    namespace: Annotated[str | None, typer.Option(help="Of this namespace.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Of this tenant, as stats shows it.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Of all.")] = False,
    store: StoreUrl = None,
    url: Url = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Serve hits in other words again after alarms.

    Audits begin anew. Mend the cause first (an answer that is wrong: feedback; questions that are
    not alike: another namespace, a smaller max_error), or the alarm comes again.
    """
    if namespace is None and tenant is None and not everything:
        raise ConfigError("whose audits", MISSING, "--namespace faq, --tenant ID, or --all")
    with open_view(store, url, config) as view:
        count = view.reset_audits(namespace, tenant)
    if as_json:
        print_json({"reset": count, "store": view.place})
    else:
        accounts = "account" if count == 1 else "accounts"
        print(f"reset {count} {accounts} of audits in {view.place}")
