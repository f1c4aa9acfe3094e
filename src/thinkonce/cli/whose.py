"""Whose entries a command makes or asks about, from its options."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from thinkonce.errors import ConfigError

__all__ = ("WHOSE", "ApiKeyEnv", "Group", "Tenant", "whose_headers")

WHOSE = "--api-key-env NAME, --tenant ID or --group NAME"

ApiKeyEnv = Annotated[
    str | None, typer.Option("--api-key-env", help="The variable that holds the client's key.")
]
Tenant = Annotated[
    str | None, typer.Option("--tenant", help="A tenant as `ls --json` shows it, or anonymous.")
]
Group = Annotated[str | None, typer.Option("--group", help="A group of the gateway's [groups].")]


def whose_headers(api_key_env: str | None, tenant: str | None, group: str | None) -> dict[str, str]:
    """For the admin API; empty where nobody is named. Raises ConfigError for two names, or for a
    variable that is not set.
    """
    given = [name for name in (api_key_env, tenant, group) if name is not None]
    if len(given) > 1:
        raise ConfigError("the tenant of the entries", ", ".join(given), f"one of {WHOSE}")
    if tenant is not None:
        return {"x-thinkonce-tenant": tenant}
    if group is not None:
        return {"x-thinkonce-group": group}
    if api_key_env is None:
        return {}
    key = os.environ.get(api_key_env, "").strip()
    if not key:
        accepts = "the name of an environment variable that holds the client's key"
        raise ConfigError("--api-key-env", api_key_env, accepts)
    # Anthropic's clients send the key in a header of its own; the gateway knows which to use.
    return {
        "x-thinkonce-client-authorization": f"Bearer {key}",
        "x-thinkonce-client-api-key": key,
        **_of_openai(),
    }


def _of_openai() -> dict[str, str]:
    """What OpenAI's clients add from the environment; it is part of who asks."""
    names = {"openai-organization": "OPENAI_ORG_ID", "openai-project": "OPENAI_PROJECT_ID"}
    return {name: os.environ[place] for name, place in names.items() if os.environ.get(place)}
