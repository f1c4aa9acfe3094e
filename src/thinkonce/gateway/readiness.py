"""What a gateway needs before it serves: asked by `serve` before it begins, and by `doctor`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from thinkonce.errors import ConfigError
from thinkonce.gateway.clients import check_guarded
from thinkonce.settings import Settings, Upstream
from thinkonce.stores import kind_of
from thinkonce.tiers.keyring import cipher_of, keys_of
from thinkonce.tiers.store import store_path
from thinkonce.upstream.pools import Pool
from thinkonce.web.tls import context_of

__all__ = (
    "LOCAL_POOL",
    "check_tracing",
    "complaints",
    "local_models",
    "open_to_proxies",
    "pays",
    "unreachable",
)

LOCAL_POOL = "local"


def complaints(
    settings: Settings, environ: Mapping[str, str]
) -> Iterator[tuple[str, ConfigError | None]]:
    """What was looked at, by name, and why the gateway cannot start with it; None: it can."""
    gateway, store = settings.gateway, settings.store
    if gateway.tls_cert or gateway.tls_key:
        yield "tls", _wrong(lambda: context_of(gateway.tls_cert, gateway.tls_key))
    if store.encryption_key or store.encryption_key_file:
        yield "encryption", _wrong(lambda: cipher_of(keys_of(store), "sqlite"))
    yield "clients", _wrong(lambda: check_guarded(settings))
    for name, declared in settings.upstreams.items():
        if declared.api_key_env:
            pool = Pool(name, declared)
            yield f"key of {name}", _wrong(partial(pool.take_key, environ))
        if declared.engine_secret_env:
            yield f"secret of {name}", _wrong(partial(check_secret, name, declared))
    if settings.tracing.enabled:
        yield "tracing", _wrong(check_tracing)
    if settings.compares:
        yield "semantic", _wrong(check_meaning)


def check_secret(name: str, declared: Upstream) -> None:
    """Raises ConfigError where a model server's secret is nowhere."""
    if not declared.engine_secret:
        variable = declared.engine_secret_env
        where = f"[upstreams.{name}] engine_secret_env"
        raise ConfigError(where, variable, f"a variable that is set, or {variable}_FILE")


def check_tracing() -> None:
    """Raises ConfigError where the packages that tracing stands on are not installed."""
    try:
        import thinkonce.gateway.tracing  # noqa: F401
    except ModuleNotFoundError as missing:
        accepts = (
            f"true once {missing.name} is there; pip install '/path/to/thinkonce[otel]' brings it"
        )
        raise ConfigError("[tracing] enabled", True, accepts) from missing


def check_meaning() -> None:
    """The same of what questions are compared with. Loads no model."""
    try:
        import thinkonce.meaning.opening  # noqa: F401
    except ModuleNotFoundError as missing:
        accepts = f"true once {missing.name} is there; "
        accepts += "pip install '/path/to/thinkonce[semantic]' brings it"
        raise ConfigError("[semantic] enabled", True, accepts) from missing


def unreachable(settings: Settings) -> Iterator[tuple[str, str]]:
    """Pools that no model's name leads to, each with the one before it that takes all.

    A name that stands in `models` as it is goes before patterns; a fallback is reached otherwise.
    """
    pools = dict(settings.upstreams)
    if settings.local.enabled:
        pools.setdefault(LOCAL_POOL, Upstream(urls=[], models=local_models(settings)))
    fallbacks = {name for pool in pools.values() for name in pool.fallback}
    takes_all, named = "", set[str]()
    for name, pool in pools.items():
        own = {model for model in pool.models if not set(model) & set("*?[")}
        if takes_all and name not in fallbacks and not own - named:
            yield name, takes_all
        named |= own
        if "*" in pool.models:
            takes_all = takes_all or name


def local_models(settings: Settings) -> list[str]:
    """What leads to the local model: all, and beside other pools its own name before all."""
    return [settings.local.model, "*"] if settings.upstreams else ["*"]


def pays(settings: Settings) -> bool:
    """Whether what is asked is paid with a key of the gateway's own."""
    return any(pool.api_key_env for pool in settings.upstreams.values())


def open_to_proxies(settings: Settings) -> str:
    """What a proxy on this machine could lay open, as a line that says what to do; "": nothing.

    One that adds no header and keeps its connections is not to be told from a local program.
    """
    paid = pays(settings)
    if settings.admin.token or not (paid or _has_entries(settings.store.url)):
        return ""
    line = "[admin] token is not set, so programs on this machine may use /cache: set it"
    if paid and not settings.clients:
        line += ", and [clients],"
    return f"{line} behind any proxy on this machine, which could be taken for one of them"


def _has_entries(url: str) -> bool:
    kind = kind_of(url)
    return kind.is_shared and (bool(kind.place) or store_path(url).exists())


def _wrong(check: Callable[[], object]) -> ConfigError | None:
    try:
        check()
    except ConfigError as error:
        return error
    return None
