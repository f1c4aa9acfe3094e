"""Whom the gateway asks and whom it answers: the tables [upstreams.NAME] and [clients.NAME]."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from thinkonce.settings.section import NONE, YES_NO, Section, about, seconds, size

__all__ = ("Client", "Upstream")


class Upstream(Section, frozen=True):
    """A pool of equivalent servers. Pools never share answers."""

    urls: Annotated[
        list[str],
        about(
            "Base URLs as the provider's SDK takes them, with or without /v1.",
            "a list of http:// or https:// URLs",
        ),
    ]
    models: Annotated[
        list[str],
        about("Names this pool serves; `*` stands for any text.", "a list of patterns"),
    ] = msgspec.field(default_factory=lambda: ["*"])
    ask_usage: Annotated[
        bool,
        about("Ask for the usage chunk on streams that did not; it is taken out again.", YES_NO),
    ] = False
    dialect: Annotated[
        Literal["openai", "anthropic"],
        about(
            "How the gateway's own key is sent: `Authorization: Bearer`, or `x-api-key` with "
            "`anthropic-version`.",
            "openai | anthropic",
        ),
    ] = "openai"
    api_key_env: Annotated[
        str,
        about(
            "Environment variable that holds the key to use here in place of the client's; the "
            "same name with _FILE behind it may name a file that does. Serves [clients] only. "
            "Empty: the client's key passes through.",
            "a variable's name",
        ),
    ] = ""
    account_paths: Annotated[
        bool,
        about(
            "With the gateway's own key: let clients use paths that ask no model (files, batches, "
            "stored responses), where they see each other's.",
            YES_NO,
        ),
    ] = False
    fallback: Annotated[
        list[str],
        about(
            "Pools that answer, in this order, where this one cannot: no connection, a timeout, "
            "429 or 5xx. Theirs is the key under which such an answer is kept.",
            "a list of names of [upstreams]",
        ),
    ] = msgspec.field(default_factory=list)
    fallback_model: Annotated[
        str,
        about(
            "The model to ask for where this pool answers in another's place; empty: the same.",
            "a model's name",
        ),
    ] = ""
    choice: Annotated[
        Literal["weighted", "ordered"],
        about(
            "Which server is asked first: each in its share, or always the first that is well.",
            "weighted | ordered",
        ),
    ] = "weighted"
    weights: Annotated[
        list[float],
        about("Shares of the URLs; none: equal ones.", "a list of numbers > 0, one for each URL"),
    ] = msgspec.field(default_factory=list)
    max_concurrent: Annotated[
        int | None,
        about("Requests a server gets at a time.", "a whole number >= 1" + NONE, least=1),
    ] = None
    max_waiting: Annotated[
        int,
        about(
            "Requests that may wait for a server to have room; beyond it 503.",
            "0 to 100000",
            least=0,
            most=100_000,
        ),
    ] = 100
    deadline: Annotated[
        float | None,
        seconds(
            "From a request to its answer's first byte, waiting and retries included; none: what "
            "the timeouts of [gateway] add up to.",
            NONE,
            least=0.01,
        ),
    ] = None
    retry_budget: Annotated[
        float,
        about(
            "Further attempts for each request, in the long run; ten are held in reserve.",
            "0 to 10",
            least=0,
            most=10,
        ),
    ] = 0.2
    breaker_failures: Annotated[
        int,
        about(
            "Failures in a row after which a server is left alone for `breaker_pause`.",
            "a whole number >= 1",
            least=1,
        ),
    ] = 5
    breaker_pause: Annotated[float, seconds("How long; then one request tries it.", least=0.01)] = (
        5.0
    )
    health_path: Annotated[
        str,
        about(
            "Asked for at each server's root, apart from requests; a server that does not answer "
            "it with 2xx gets none. Empty: requests alone show who is well.",
            "a path such as /health",
        ),
    ] = ""
    health_interval: Annotated[float, seconds("Between two of these.", least=0.01)] = 10.0

    engine_secret: Annotated[
        str,
        about(
            "Of servers that are `thinkonce serve-model`: their `[kv] gateway_secret`. They are "
            "told whose a request is. Empty: these are other servers.",
            "a text of 32 characters or more",
            secret=True,
        ),
    ] = ""
    engine_secret_env: Annotated[
        str,
        about(
            "Environment variable that holds it instead; the same name with _FILE behind it may "
            "name a file that does.",
            "a variable's name",
        ),
    ] = ""


class Client(Section, frozen=True):
    """Somebody who may use this gateway, or `serve-model`; `thinkonce keys add` writes these. All
    others get 401. `strict` and `max_bytes` are of the gateway alone.
    """

    key_sha256: Annotated[
        str,
        about("SHA-256 of the client's key, in hex; never the key.", "64 hex digits", secret=True),
    ]
    group: Annotated[
        str, about("Clients of one group share answers; empty: nobody does.", "a name")
    ] = ""
    models: Annotated[
        list[str],
        about("Names this client may ask for; none: all.", "a list of patterns"),
    ] = msgspec.field(default_factory=list)
    rate_limit: Annotated[
        int | None,
        about(
            "Requests a minute, hits included; beyond it 429.",
            "a whole number >= 1" + NONE,
            least=1,
        ),
    ] = None
    max_concurrent: Annotated[
        int | None,
        about(
            "Requests under way at a time, streams until their end; beyond it 429.",
            "a whole number >= 1" + NONE,
            least=1,
        ),
    ] = None
    strict: Annotated[bool, about("Serve this client as `gateway.strict` serves all.", YES_NO)] = (
        False
    )
    max_bytes: Annotated[
        int | None,
        size("Bytes that answers kept for it, or its group, may take.", NONE, least=1),
    ] = None
