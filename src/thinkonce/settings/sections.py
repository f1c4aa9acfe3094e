"""Every setting, defined once: for code, flags, environment, TOML and docs/configuration.md.

A field's type and bounds are checked by `load`; its `about` is what the docs and the errors say.
Durations are float seconds and sizes are int bytes once loaded, however they were written.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from thinkonce.settings.edge import EdgeSettings
from thinkonce.settings.kv import Kv, KvCodec, KvMethod
from thinkonce.settings.local import Local
from thinkonce.settings.peers import Client, Upstream
from thinkonce.settings.rates import Rates
from thinkonce.settings.section import (
    DAY,
    HOUR,
    MIB,
    NONE,
    TIMES,
    YES_NO,
    Section,
    about,
    seconds,
    size,
)
from thinkonce.settings.semantic import Namespace, Semantic
from thinkonce.settings.ttl_classes import TtlClass, default_classes
from thinkonce.stores import ACCEPTS

__all__ = (
    "DEFAULT_POLICY",
    "Admin",
    "CacheSection",
    "Client",
    "Data",
    "Gateway",
    "Kv",
    "KvCodec",
    "KvMethod",
    "Local",
    "Log",
    "Namespace",
    "PolicyName",
    "Rates",
    "Section",
    "Semantic",
    "Settings",
    "Store",
    "Tracing",
    "TtlClass",
    "Upstream",
    "default_classes",
)


# Those that `eviction` registers; what none is named for is what users get.
PolicyName = Literal["cost", "lru", "sieve", "s3fifo", "arc"]
DEFAULT_POLICY: PolicyName = "cost"


class CacheSection(Section, frozen=True):
    """How long answers live and what is kept. The gateway's defaults; requests may ask for less."""

    ttl: Annotated[
        float | str | None,
        Meta(
            description="Life of an answer.",
            extra={"accepts": TIMES + NONE + ", or a name of [ttl_classes]", "unit": "ttl"},
        ),
    ] = HOUR
    max_age: Annotated[float | None, seconds("No answer lives longer than this.", NONE)] = 7 * DAY
    max_bytes: Annotated[
        int | None,
        size(
            "Bound of the memory tier. The gateway spends up to an eighth of it (8 to 64 MiB) on "
            "answers made ready for hits, and up to an eighth (at most 64 MiB) on requests that "
            "came before.",
            NONE,
            least=1,
        ),
    ] = 256 * MIB
    max_size: Annotated[
        int | None, about("Most entries in the memory tier.", "a whole number >= 1" + NONE, least=1)
    ] = None
    max_entry_bytes: Annotated[int, size("Larger answers are not kept.", least=1, fixed=True)] = MIB
    keep_requests: Annotated[
        bool,
        about(
            "Keep what was asked beside each answer, compressed: `explain` compares with it, and "
            "an export that carries it can be imported under another secret.",
            YES_NO,
        ),
    ] = True
    policy: Annotated[
        PolicyName,
        about(
            "What is forgotten first when memory is full.",
            " | ".join(get_args(PolicyName)),
            fixed=True,
        ),
    ] = DEFAULT_POLICY
    jitter: Annotated[
        float,
        about(
            "Part of the life taken off at random, so that answers stored together do not "
            "expire together.",
            "0 to 0.9",
            least=0,
            most=0.9,
        ),
    ] = 0.1
    stale_while_revalidate: Annotated[
        float, seconds("How long past its life an answer may be given while a new one is made.")
    ] = 0.0
    stale_if_error: Annotated[
        float, seconds("How long past its life an answer may be given when the model fails.")
    ] = 0.0
    stale_retention: Annotated[
        float, seconds("How long expired answers are kept, so that stale ones exist.")
    ] = DAY
    early_refresh: Annotated[
        float,
        about(
            "How eagerly an answer is made anew before it expires (XFetch's beta; 0 = never).",
            "0 to 10",
            least=0,
            most=10,
        ),
    ] = 1.0
    max_temperature: Annotated[
        float | None,
        about("Requests above this temperature are not kept.", "a number >= 0" + NONE, least=0),
    ] = None
    samples: Annotated[
        int,
        about(
            "Answers kept to one request whose temperature is above 0 and that has no `seed`; "
            "until there are as many, the model is asked.",
            "1 to 100",
            least=1,
            most=100,
        ),
    ] = 1
    sampling: Annotated[
        Literal["turn", "random"],
        about("Which of several answers to one request is given next.", "turn | random"),
    ] = "turn"
    ignore_fields: Annotated[
        list[str],
        about(
            "Body fields left out of the identity of a request, such as `user`. Two requests "
            "that differ only there share an answer.",
            "a list of field names",
        ),
    ] = msgspec.field(default_factory=list)


class Store(Section, frozen=True):
    """Where answers lie when the process ends."""

    url: Annotated[
        str,
        about(
            "Where answers are stored; empty: `answers.db` in the data folder.",
            ACCEPTS,
            fixed=True,
        ),
    ] = ""
    max_bytes: Annotated[int, size("Bound of the store.", least=MIB)] = 1024 * MIB
    secret: Annotated[
        str,
        about(
            "What keys and tenants are hashed with; empty: a file beside the store, made once. "
            "Machines that share a store need the same one.",
            "a text of 32 characters or more",
            secret=True,
            fixed=True,
        ),
    ] = ""
    encryption_key: Annotated[
        str,
        about(
            "Encrypts what is stored (AES-256-GCM); empty: nothing is encrypted. Of several keys "
            "the first encrypts and all decrypt.",
            "32 bytes in hex or base64, or several such keys",
            secret=True,
            fixed=True,
        ),
    ] = ""
    encryption_key_file: Annotated[
        str,
        about(
            "A file that holds the key, or the keys, instead; `thinkonce encrypt --make-key` "
            "makes one.",
            "a path; ~ is expanded",
            fixed=True,
        ),
    ] = ""


class Gateway(EdgeSettings, frozen=True):
    """The HTTP door."""

    host: Annotated[
        str, about("Address to listen on.", "a host name or an address", fixed=True)
    ] = "127.0.0.1"
    port: Annotated[
        int,
        about(
            "Port to listen on; 0: any free one.", "0 to 65535", least=0, most=65_535, fixed=True
        ),
    ] = 8000
    workers: Annotated[
        int,
        about(
            "Processes that serve; more than one need a store on disk.",
            "1 to 64",
            least=1,
            most=64,
            fixed=True,
        ),
    ] = 1
    annotate_body: Annotated[
        bool, about("Put `cache_hit` and `kv_cache` into answers.", YES_NO)
    ] = True
    inline: Annotated[bool, about("Let probes answer memory hits outside the flow.", YES_NO)] = True
    fast_lane: Annotated[
        bool, about("Let the probe answer from the bytes of a request, below ASGI.", YES_NO)
    ] = True
    strict: Annotated[
        bool,
        about(
            "Tell no client whether an answer was stored: no marks, hits as slow as the call they "
            "repeat, nothing in the fast lane.",
            YES_NO,
        ),
    ] = False
    forward_headers: Annotated[
        list[str],
        about(
            "Request headers sent upstream besides the known ones; they enter the identity.",
            'a list of header names, or ["*"] for all',
        ),
    ] = msgspec.field(default_factory=list)
    hosts: Annotated[
        list[str],
        about(
            "Names by which callers without a key may address a gateway that listens on loopback "
            "and knows no clients, beside localhost and addresses; a page of another site comes "
            "by its own name.",
            "a list of names such as llm.internal, without a port",
        ),
    ] = msgspec.field(default_factory=list)
    cors_origins: Annotated[
        list[str],
        about(
            "Sites whose pages may use the gateway from a browser; never /cache or /metrics. "
            '"*": any site, also one that somebody only happens to visit.',
            'a list of origins such as https://chat.example.com, or ["*"]',
        ),
    ] = msgspec.field(default_factory=list)
    cors_credentials: Annotated[
        bool, about("Let those pages send cookies, for a proxy that asks for them.", YES_NO)
    ] = False
    finish_abandoned: Annotated[
        bool, about("Finish and store an answer whose client has left.", YES_NO, fixed=True)
    ] = False
    remote_media: Annotated[
        Literal["cache", "bypass"],
        about(
            "Requests that name a picture by URL; when kept, at most as long as `dynamic`.",
            "cache | bypass",
        ),
    ] = "cache"
    access_log: Annotated[bool, about("One log line a request.", YES_NO)] = True
    connect_timeout: Annotated[float, seconds("For a connection upstream.", least=0.01)] = 10.0
    first_byte_timeout: Annotated[
        float, seconds("From the request to the answer's first byte.", least=0.01)
    ] = 600.0
    read_timeout: Annotated[float, seconds("Between two pieces of an answer.", least=0.01)] = 120.0
    retries: Annotated[
        int,
        about(
            "Further attempts after a connection error before the first byte.",
            "0 to 10",
            least=0,
            most=10,
        ),
    ] = 2
    drain_timeout: Annotated[
        float, seconds("How long answers under way may take after SIGTERM.")
    ] = 30.0


class Log(Section, frozen=True):
    """What is written to stderr."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        about("Least severe line that is written.", "debug | info | warning | error"),
    ] = "info"
    format: Annotated[
        Literal["text", "json"],
        about("How a line is written: for people, or an object a line.", "text | json"),
    ] = "text"


class Tracing(Section, frozen=True):
    """OpenTelemetry spans. Where they go, and how many, say the standard OTEL_* variables."""

    enabled: Annotated[
        bool,
        about("Make a span of each request and each call of an upstream.", YES_NO, fixed=True),
    ] = False


class Data(Section, frozen=True):
    """Where files are kept that nobody named a place for."""

    dir: Annotated[
        str, about("Folder; empty: the user's data folder.", "a path; ~ is expanded", fixed=True)
    ] = ""


class Admin(Section, frozen=True):
    """Who may look into a running gateway and empty it."""

    token: Annotated[
        str,
        about(
            "Expected in `x-thinkonce-admin-token`; empty: only callers on this machine.",
            "a text of 8 characters or more",
            secret=True,
        ),
    ] = ""


class Settings(Section, frozen=True):
    """Everything, loaded and checked. Nested tables are keyed by their NAME."""

    cache: CacheSection = CacheSection()
    store: Store = Store()
    gateway: Gateway = Gateway()
    local: Local = Local()
    kv: Kv = Kv()
    log: Log = Log()
    tracing: Tracing = Tracing()
    semantic: Semantic = Semantic()
    data: Data = Data()
    admin: Admin = Admin()
    upstreams: dict[str, Upstream] = msgspec.field(default_factory=dict)
    clients: dict[str, Client] = msgspec.field(default_factory=dict)
    namespaces: dict[str, Namespace] = msgspec.field(default_factory=dict)
    prices: dict[str, Rates] = msgspec.field(default_factory=dict)
    ttl_classes: dict[str, TtlClass] = msgspec.field(default_factory=default_classes)
    groups: Annotated[
        dict[str, list[str]],
        about(
            "Credentials that share answers: group name -> their SHA-256 in hex.",
            "a table of lists of 64 hex digits",
        ),
    ] = msgspec.field(default_factory=dict)

    @property
    def compares(self) -> bool:
        """Whether questions in other words are answered, in one namespace at least."""
        return self.semantic.enabled or any(row.semantic for row in self.namespaces.values())
