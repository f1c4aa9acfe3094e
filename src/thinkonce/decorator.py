"""`@cached`: give a function that calls a model a memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from math import inf
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

import msgspec

from thinkonce.cache import Cache, Size
from thinkonce.calls.caller import Caller, Options
from thinkonce.calls.questions import askable, guessed, named
from thinkonce.calls.wrapper import Probe, build
from thinkonce.errors import ConfigError
from thinkonce.functions import Function, Kind, describe
from thinkonce.outcome import Outcome, Reason
from thinkonce.selector import Selector
from thinkonce.settings.semantic import semantic_of
from thinkonce.stats import CacheStats, Explanation
from thinkonce.units import parse_seconds
from thinkonce.values import Serializer
from thinkonce.workings import Ttl

__all__ = ("Cached", "cached")

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")
log = logging.getLogger("thinkonce")


class Cached(Protocol[P, R_co]):
    """A function with a memory: called as before, plus what is listed here."""

    cache: Cache
    __name__: str
    __qualname__: str

    @property
    def __wrapped__(self) -> Callable[P, R_co]: ...

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    @overload
    def __get__(self, instance: None, owner: type[Any], /) -> Cached[P, R_co]: ...

    @overload
    def __get__(
        self: Cached[Concatenate[S, Q], R_co], instance: S, owner: type[Any] | None = None, /
    ) -> Callable[Q, R_co]: ...

    def cache_stats(self) -> CacheStats:
        """Counts of this function's calls; `total_items` and `bytes` are of its cache."""
        ...

    def clear_cache(self) -> int:
        """Forget every answer of this function; returns how many there were."""
        ...

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forget the answer of one call; False if there was none."""
        ...

    def wrong(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """The answer of one call is wrong: as `invalidate`, and where it was another question's,
        that one keeps it and this one never gets it again. False if there was none."""
        ...

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the function whatever is stored, store and return the new value."""
        ...

    def explain(self, *args: P.args, **kwargs: P.kwargs) -> Explanation:
        """What this call would get now, and why. Counts nothing and calls nothing."""
        ...


@overload
def cached(fn: Callable[P, R], /) -> Cached[P, R]: ...


@overload
def cached(
    fn: None = None,
    /,
    *,
    ttl: Ttl = None,
    max_size: int | None = None,
    max_bytes: Size = None,
    policy: str | None = None,
    store: str | None = None,
    cache: Cache | None = None,
    namespace: str = "",
    tags: Iterable[str] = (),
    priority: str = "",
    key: Callable[..., Any] | None = None,
    ignore: Iterable[str] = (),
    version: str | None = None,
    semantic: object = None,
    serializer: Serializer | None = None,
    stale_while_revalidate: float | str | None = None,
    condition: Callable[[Any], bool] | None = None,
) -> Callable[[Callable[P, R]], Cached[P, R]]: ...


def cached(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    ttl: Ttl = None,
    max_size: int | None = None,
    max_bytes: Size = None,
    policy: str | None = None,
    store: str | None = None,
    cache: Cache | None = None,
    namespace: str = "",
    tags: Iterable[str] = (),
    priority: str = "",
    key: Callable[..., Any] | None = None,
    ignore: Iterable[str] = (),
    version: str | None = None,
    semantic: object = None,
    serializer: Serializer | None = None,
    stale_while_revalidate: float | str | None = None,
    condition: Callable[[Any], bool] | None = None,
) -> Any:
    """Remember what a function returned for the same arguments.

    Works on functions, methods, coroutines, generators and async generators (streams are
    recorded and replayed). `None` is a value; exceptions are never remembered; concurrent
    identical calls run once. Without arguments: no expiry, 256 MiB of memory.

    ttl: seconds, `5m`, or a class such as `hot`; None for no expiry.
    max_size, max_bytes, policy, store: of the cache made for this function, see `Cache`.
    cache: use this one instead; then the four above belong to it.
    namespace, tags: for versions and for purging in bulk.
    priority: high | medium | low | pinned, the weight when room is needed.
    key: called with the same arguments; what it returns is the identity in their place.
    ignore: names of parameters that do not count.
    version: stands in for the digest of the function's source.
    semantic: also answer questions in other words: True, a smallest similarity (0 to 1), or a
        dict of the settings of `[semantic]`, with `question`, the parameter that is asked.
    serializer: an object with `dumps` and `loads`, for types a store cannot keep by itself.
    stale_while_revalidate: seconds past expiry in which the old value may still be given
        while a new one is made in the background.
    condition: called with each new value; False: it is returned but not stored.

    Raises ConfigError for settings that cannot work.
    """
    own: dict[str, object] = {
        "max_size": max_size,
        "max_bytes": max_bytes,
        "policy": policy,
        "store": store,
    }
    wording = _Wording.of(semantic, cache)
    own["semantic"] = wording.of_own_cache
    holder = _cache_for(cache, {name: value for name, value in own.items() if value is not None})
    if tags is None:
        raise ConfigError("tags", tags, 'texts, such as ["faq"]; () for none')
    tags = (tags,) if isinstance(tags, str) else tuple(tags)
    controls = holder.controls(ttl, tags, namespace, priority)
    if stale_while_revalidate is not None:
        seconds = parse_seconds(stale_while_revalidate, "stale_while_revalidate")
        controls = msgspec.structs.replace(controls, stale_while_revalidate=seconds)
    if key is not None and not callable(key):
        raise ConfigError("key", key, "a function of the same arguments, or None")
    ignored = frozenset((ignore,) if isinstance(ignore, str) else ignore)
    options = Options(controls, ignored, key, serializer, condition)

    def decorate(function: Any) -> Any:
        if isinstance(function, staticmethod | classmethod):
            return type(function)(_decorate(function.__func__, holder, options, version, wording))
        return _decorate(function, holder, options, version, wording)

    return decorate if fn is None else decorate(fn)


def _cache_for(cache: Cache | None, own: dict[str, Any]) -> Cache:
    if cache is None:
        return Cache(**own)
    if own:
        name, value = next(iter(own.items()))
        raise ConfigError(name, value, "it where the Cache is made that cache= gives")
    return cache


class _Wording(msgspec.Struct, frozen=True):
    """What was said of other words. `of_own_cache`: None where the cache was given.

    `wanted` None: where the cache compares questions and it is clear which argument is one.
    """

    wanted: bool | float | None
    question: object = None
    of_own_cache: object = None

    @classmethod
    def of(cls, semantic: object, cache: Cache | None) -> _Wording:
        if semantic is None or semantic is False:
            return cls(wanted=semantic)
        settings, beside = semantic_of(semantic, ("question",))
        wanted = settings.similarity or True
        if cache is None:
            return cls(wanted, beside.get("question"), settings)
        if cache.shelf.meaning is None:
            accepts = "it where the Cache is made that cache= gives: Cache(semantic=True)"
            raise ConfigError("semantic", semantic, accepts)
        said = set(semantic) if isinstance(semantic, Mapping) else set()
        if said - {"question", "similarity", "enabled"}:
            name = min(said - {"question", "similarity", "enabled"})
            accepts = "it where the Cache is made that cache= gives"
            raise ConfigError(f"semantic[{name!r}]", "***", accepts)
        return cls(wanted, beside.get("question"))

    def question_of(self, function: Function, options: Options, *, compares: bool) -> str:
        """The parameter that may be asked in other words; "" for none."""
        if self.wanted is False or not compares:
            return ""
        parameters = askable(function, options.ignore)
        if self.wanted is None:
            return "" if options.key else guessed(parameters)
        if options.key is not None:
            raise ConfigError("semantic", self.wanted, "a function without key=")
        return named(self.question, parameters, function.scope)


def _decorate(
    fn: Callable[..., Any],
    cache: Cache,
    options: Options,
    version: str | None,
    wording: _Wording,
) -> Callable[..., Any]:
    function = describe(fn, version)
    unknown = options.ignore - set(function.names)
    if unknown:
        known = ", ".join(function.names)
        raise ConfigError("ignore", sorted(unknown), f"parameters of {function.scope}: {known}")
    compares = cache.shelf.meaning is not None
    question = wording.question_of(function, options, compares=compares)
    controls = msgspec.structs.replace(options.controls, semantic=wording.wanted)
    caller = Caller(cache, function, replace(options, question=question, controls=controls))
    cache.register(caller)
    wrapper = build(caller.function, _slow(caller), _probe(caller, options), options.ignore)
    _attach(wrapper, caller)
    return wrapper


def _slow(caller: Caller) -> Callable[..., Any]:
    return {
        Kind.PLAIN: caller.call,
        Kind.COROUTINE: caller.call_async,
        Kind.GENERATOR: caller.stream,
        Kind.ASYNC_GENERATOR: caller.stream_async,
    }[caller.function.kind]


def _probe(caller: Caller, options: Options) -> Probe | None:
    cache = caller.cache
    if not cache.inline or options.key is not None:
        return None
    memory = cache.memory
    return Probe(
        identity=caller.identity,
        map=memory.map,
        now=cache.setting.clock.monotonic,
        tally=caller.tally,
        levels=_levels(),
        policy=memory.policy,
        note=memory.policy.note,
        heard=memory.heard.append,
        epoch=memory.purges.epoch if cache.shared else None,
        tier=memory if cache.shared else None,
        endless=options.controls.ttl is None and cache.setting.rules.ttl == inf,
    )


class Levels(dict[int, bool]):
    """The logger's own memo of which levels are on; `quiet` while INFO is known to be off.

    `logging` empties the memo whenever a level changes anywhere, and fills it when it is asked.
    An attribute is read in half the time of a look-up, and every hit reads it.
    """

    __slots__ = ("quiet",)

    def __init__(self) -> None:
        super().__init__()
        self.quiet = False

    def __setitem__(self, level: int, is_on: bool) -> None:
        super().__setitem__(level, is_on)
        if level == logging.INFO:
            self.quiet = not is_on

    def clear(self) -> None:
        self.quiet = False
        super().clear()


def _levels() -> Levels:
    """Put in the place of the logger's memo. Where an interpreter has none, nobody fills it, and
    every hit takes the slow path, which asks properly."""
    memo = getattr(log, "_cache", None)
    if isinstance(memo, Levels):
        return memo
    levels = Levels()
    if memo is not None:
        vars(log)["_cache"] = levels
    return levels


def _attach(wrapper: Any, caller: Caller) -> None:
    cache, function, bind = caller.cache, caller.function, _binder(caller)
    wrapper.cache = cache
    wrapper.cache_stats = lambda: cache.stats_of(caller.tally, caller.ttl)
    wrapper.clear_cache = lambda: cache.shelf.purge(
        Selector(scope=function.scope, namespace=caller.meta.namespace)
    )
    wrapper.invalidate = lambda *args, **kwargs: _invalidate(caller, bind(*args, **kwargs))
    wrapper.wrong = lambda *args, **kwargs: _wrong(caller, bind(*args, **kwargs))
    refresh = _refresh_of(caller, function)
    wrapper.refresh = lambda *args, **kwargs: refresh(bind(*args, **kwargs))
    wrapper.explain = lambda *args, **kwargs: _explain(caller, bind(*args, **kwargs))


def _binder(caller: Caller) -> Callable[..., tuple[Any, ...]]:
    """`caller.bind`; of a method, it makes sure that the first value is an object with it."""
    function, bind = caller.function, caller.bind
    if not function.is_method:
        return bind
    name = function.scope.rpartition(".")[2]

    def bind_method(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
        # `bot.ask.invalidate("hi")` reads well, but a function's attributes know no object.
        if args and hasattr(args[0], name):
            return bind(*args, **kwargs)
        owner = function.scope.split(".")[-2]
        raise TypeError(
            f"{function.scope} is a method: give its object first, as in "
            f"{owner}.{name}.invalidate({owner.lower()}, ...), and so for the others"
        )

    return bind_method


def _refresh_of(caller: Caller, function: Function) -> Callable[..., Any]:
    by_kind: dict[Kind, Callable[..., Any]] = {
        Kind.PLAIN: caller.refresh,
        Kind.COROUTINE: caller.refresh_async,
        Kind.GENERATOR: partial(caller.stream, refresh=True),
        Kind.ASYNC_GENERATOR: partial(caller.stream_async, refresh=True),
    }
    return by_kind[function.kind]


def _invalidate(caller: Caller, values: tuple[Any, ...]) -> bool:
    key = caller.key(values)
    return key is not None and caller.cache.shelf.discard(key)


def _wrong(caller: Caller, values: tuple[Any, ...]) -> bool:
    key = caller.key(values)
    return key is not None and caller.cache.wrong(caller.ask(values, key))


def _explain(caller: Caller, values: tuple[Any, ...]) -> Explanation:
    key = caller.key(values)
    if key is None:
        return Explanation(Outcome.BYPASS, Reason.UNKEYABLE, "")
    return caller.cache.examine(caller.ask(values, key))
