"""Rules that one field's type cannot state."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import urlsplit

from thinkonce.errors import ConfigError
from thinkonce.settings.sections import Client, Gateway, Settings, Upstream
from thinkonce.stores import kind_of

__all__ = ("LEAST_SECRET", "check", "check_upstream_url")

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
LEAST_SECRET = 32  # characters
_LEAST_ATTENDED = 128  # tokens; with fewer nothing is left to choose
_LEAST_TOKEN = 8
# What providers' pages show in full, though it is not where an API begins.
_ENDPOINT = re.compile(
    r"(?:/chat/completions|(?<=/v1)/(?:completions|responses|messages|embeddings))/?$"
)
NOBODY_SAID: Mapping[str, str] = MappingProxyType({})


def check(settings: Settings, names: Mapping[str, str] = NOBODY_SAID) -> None:
    """Raise ConfigError for the first thing that cannot work.

    `names`: "section.name" -> what its writer calls it, a flag or a variable say.
    """
    if settings.store.url:
        written = names.get("store.url", "[store] url")
        _check_store(written, settings.store.url, settings.gateway.workers)
    pools = [*settings.upstreams, *(["local"] if settings.local.enabled else [])]
    for name, upstream in settings.upstreams.items():
        _check_upstream(name, upstream)
        for other in upstream.fallback:
            if other == name or other not in pools:
                accepts = f"names of other pools: {', '.join(n for n in pools if n != name)}"
                raise ConfigError(f"[upstreams.{name}] fallback", other, accepts)
    _check_origins(settings.gateway)
    _check_hosts(settings.gateway)
    _check_length("[admin] token", settings.admin.token, _LEAST_TOKEN)
    _check_length("[store] secret", settings.store.secret, LEAST_SECRET)
    _check_length("[kv] gateway_secret", settings.kv.gateway_secret, LEAST_SECRET)
    if 0 < settings.kv.sentence_tokens < _LEAST_ATTENDED:
        written = names.get("kv.sentence_tokens", "[kv] sentence_tokens")
        raise ConfigError(written, settings.kv.sentence_tokens, "0, which is off, or 128 and more")
    _check_groups(settings.groups)
    _check_clients(settings.clients)


def _check_store(written: str, url: str, workers: int) -> None:
    kind = kind_of(url, written)
    if workers > 1 and not kind.is_shared:
        accepts = "sqlite:///FILE with several workers, which share answers there; or --workers 1"
        raise ConfigError(written, url, accepts)


def check_upstream_url(written: str, url: str) -> None:
    accepts = "http:// or https:// and a host, such as https://api.openai.com/v1"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(written, url, accepts)
    if endpoint := _ENDPOINT.search(parts.path):
        base = f"{parts.scheme}://{parts.netloc}{parts.path[: endpoint.start()]}"
        raise ConfigError(written, url, f"the base URL alone: {base}")


def _check_origins(gateway: Gateway) -> None:
    origins, setting = gateway.cors_origins, "[gateway] cors_origins"
    if "*" in origins:
        if len(origins) > 1:
            raise ConfigError(setting, origins, '["*"] alone, or the origins without it')
        if gateway.cors_credentials:
            accepts = 'false with cors_origins = ["*"]: browsers take no cookies there'
            raise ConfigError("[gateway] cors_credentials", True, accepts)
    for origin in origins:
        if origin != "*" and (not origin or origin != _as_browsers_say(origin)):
            accepts = "an origin as browsers send it: https://HOST or https://HOST:PORT, no slash"
            raise ConfigError(setting, origin, f"{accepts} behind, no default port, lower case")


def _check_hosts(gateway: Gateway) -> None:
    for name in gateway.hosts:
        if not name or name != name.lower() or set(name) & set(":/*@ "):
            accepts = "a name in lower case, without scheme, port or *"
            raise ConfigError("[gateway] hosts", name, accepts)


def _as_browsers_say(origin: str) -> str:
    """RFC 6454, 6.2: scheme, host and a port that is not the scheme's own; "" for no origin."""
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return ""
    host = parts.hostname or ""
    if not host or not host.isascii() or set(host) & set("*<>'\" "):
        return ""
    named = f"[{host}]" if ":" in host else host
    own = {"http": 80, "https": 443}.get(parts.scheme)
    return f"{parts.scheme}://{named}" + (f":{port}" if port not in (None, own) else "")


def _check_length(written: str, secret: str, least: int) -> None:
    if 0 < len(secret) < least:
        raise ConfigError(written, "***", f"{least} characters or more")


def _check_upstream(name: str, upstream: Upstream) -> None:
    if not upstream.urls:
        raise ConfigError(f"[upstreams.{name}] urls", [], "one URL or more")
    _check_length(f"[upstreams.{name}] engine_secret", upstream.engine_secret, LEAST_SECRET)
    for url in upstream.urls:
        check_upstream_url(f"[upstreams.{name}] urls", url)
    if upstream.weights and (
        len(upstream.weights) != len(upstream.urls) or not all(w > 0 for w in upstream.weights)
    ):
        accepts = f"a number > 0 for each of the {len(upstream.urls)} URLs"
        raise ConfigError(f"[upstreams.{name}] weights", upstream.weights, accepts)
    path = upstream.health_path
    if path and (not path.startswith("/") or set(path) & set(" \t\r\n#")):
        accepts = "a path that begins with a slash, such as /health"
        raise ConfigError(f"[upstreams.{name}] health_path", path, accepts)
    if not upstream.models:
        raise ConfigError(f"[upstreams.{name}] models", [], 'one pattern or more, such as "*"')


def _check_clients(clients: Mapping[str, Client]) -> None:
    seen: dict[str, str] = {}
    for name, client in clients.items():
        digest = client.key_sha256
        if not _SHA256.fullmatch(digest):
            accepts = "SHA-256 of a key: 64 hex digits in lower case, never the key itself"
            raise ConfigError(f"[clients.{name}] key_sha256", "***", accepts)
        if digest in seen:
            accepts = f"a key of its own: [clients.{seen[digest]}] has the same"
            raise ConfigError(f"[clients.{name}] key_sha256", "***", accepts)
        seen[digest] = name


def _check_groups(groups: object) -> None:
    if not isinstance(groups, dict):
        raise ConfigError("[groups]", "***", "a table of lists")
    for name, digests in groups.items():
        if not isinstance(digests, list):
            raise ConfigError(f"[groups] {name}", "***", "a list of SHA-256 in hex")
        for digest in digests:
            if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
                accepts = "SHA-256 of a credential: 64 hex digits, never the credential itself"
                raise ConfigError(f"[groups] {name}", "***", accepts)
