"""What a user holds: tiers, rules and counters behind a few verbs."""

from __future__ import annotations

import inspect
import logging
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, TypeVar

from thinkonce.calls.caller import Caller, Options
from thinkonce.calls.questions import askable, guessed, part
from thinkonce.clock import SYSTEM, Clock
from thinkonce.entry import Meta
from thinkonce.errors import NotCached
from thinkonce.freshness import Rules
from thinkonce.functions import Kind, describe
from thinkonce.likeness import Wording
from thinkonce.request.arguments import canonical_args
from thinkonce.request.controls import Controls
from thinkonce.selector import Selector, key_digits
from thinkonce.settings.folder import data_folder
from thinkonce.settings.sections import DEFAULT_POLICY
from thinkonce.settings.semantic import Semantic, semantic_of
from thinkonce.shelf import open_shelf
from thinkonce.stats import CacheStats, Explanation
from thinkonce.steps import Ask, Draft
from thinkonce.tiers.keyring import Keyring, parse_keys
from thinkonce.tiers.tier import Key
from thinkonce.ttl_classes import TTL_CLASSES, TtlClass
from thinkonce.units import parse_bytes, parse_seconds
from thinkonce.values import keep, persistable
from thinkonce.workings import Ttl, Workings

__all__ = ("Cache", "CacheStats", "Explanation")

log = logging.getLogger("thinkonce")
T = TypeVar("T")
Size = int | str | None
VALUE_SCOPE = "value"  # of entries made with `Cache.set`
FLUSH_SECONDS = 5.0
MOST_PLAIN_CALLERS = 256  # functions of `get_or_call` that are remembered
MISSING = object()


class Cache(Workings):
    """A cache of answers. Thread-safe, usable from threads and event loops at once.

    `store` is a URL (`sqlite:///answers.db`); None or `memory://` keeps answers in this process
    only. `ttl` is seconds, `5m`, a class such as `hot`, or None for no expiry. `max_size`
    (entries) and `max_bytes` bound the memory tier, `store_max_bytes` the store. `inline` lets
    generated wrappers answer memory hits by themselves. `ttl_classes` replaces the table of
    classes. `encryption_key` (32 bytes in hex or base64, or several such keys, the new one first)
    encrypts the store. `semantic` lets questions in other words be answered: True, a smallest
    similarity, or a dict of the settings of `[semantic]`. Raises ConfigError.
    """

    def __init__(
        self,
        store: str | None = None,
        *,
        ttl: Ttl = None,
        max_size: int | None = None,
        max_bytes: Size = "256MiB",
        store_max_bytes: Size = "1GiB",
        policy: str = DEFAULT_POLICY,
        stale_while_revalidate: float | str = 0,
        stale_if_error: float | str = 0,
        jitter: float = 0.1,
        early_refresh: float = 1.0,
        ttl_classes: Mapping[str, TtlClass] = TTL_CLASSES,
        inline: bool = True,
        secret: str = "",
        encryption_key: str = "",
        semantic: object = False,
        clock: Clock = SYSTEM,
        chance: Callable[[], float] = random.random,
    ) -> None:
        rules = Rules(
            jitter=jitter,
            stale_while_revalidate=parse_seconds(stale_while_revalidate, "stale_while_revalidate"),
            stale_if_error=parse_seconds(stale_if_error, "stale_if_error"),
            early_refresh=early_refresh,
            ttl_classes=ttl_classes,
        )
        seconds, implied = rules.parse_ttl(ttl)
        rules = replace(rules, ttl=seconds)
        encryption = parse_keys(encryption_key, "encryption_key") if encryption_key else ()
        shelf = open_shelf(
            store,
            rules,
            keys=Keyring(secret, encryption),
            max_size=max_size,
            max_bytes=None if max_bytes is None else parse_bytes(max_bytes, "max_bytes"),
            store_max_bytes=parse_bytes(store_max_bytes, "store_max_bytes"),
            policy=policy,
            clock=clock,
            chance=chance,
        )
        wanted = semantic if isinstance(semantic, Semantic) else semantic_of(semantic)[0]
        if wanted.enabled:
            shelf.compare(wanted, data=data_folder(""))
        super().__init__(shelf)
        self.inline, self.implied_priority = inline, implied
        self._plain_callers: OrderedDict[int, Caller] = OrderedDict()

    # -- requests of one's own -----------------------------------------------------------

    def get(self, request: object, /, default: Any = None, *, namespace: str = "") -> Any:
        """The stored answer to `request` (any value with a canonical form), else `default`.

        Raises TypeError if `request` has no canonical form.
        """
        ask = self._value_ask(request, Controls(only_if_cached=True, namespace=namespace))
        value = self._found(ask)
        if value is MISSING:
            self.tally.misses += 1
            return default
        return value

    def set(
        self,
        request: object,
        value: Any,
        *,
        ttl: Ttl = None,
        tags: tuple[str, ...] | list[str] | str = (),
        namespace: str = "",
        priority: str = "",
    ) -> None:
        """Store `value` as the answer to `request`. `ttl` None means the cache's own.

        With a `ttl` of 0 nothing is stored, and what was there is gone.
        """
        ask = self._value_ask(request, self.controls(ttl, tags, namespace, priority))
        ask.call = lambda: value
        made = self.keep(ask)
        if made.refused is not None:
            assert ask.key is not None
            self.shelf.discard(ask.key)

    def delete(self, request: object, /, *, namespace: str = "") -> bool:
        """Remove the answer to `request`; False if there was none."""
        key = self._value_key(request, namespace)
        return self.shelf.discard(key)

    def get_or_call(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """What `fn(*args, **kwargs)` gives, from the cache where it is known.

        Shares entries with `@cached(cache=self)` on the same function. A generator function
        gives a generator. Raises TypeError for a coroutine function.
        """
        caller, values = self._plain_call(fn, args, kwargs)
        kind = caller.function.kind
        if kind is Kind.COROUTINE:
            raise TypeError(f"{caller.function.scope} is a coroutine function; use aget_or_call()")
        given: Any = {Kind.GENERATOR: caller.stream, Kind.ASYNC_GENERATOR: caller.stream_async}
        return given.get(kind, caller.call)(values)  # type: ignore[no-any-return]

    async def aget_or_call(
        self, fn: Callable[..., Awaitable[T]], /, *args: Any, **kwargs: Any
    ) -> T:
        """The same for a coroutine function."""
        caller, values = self._plain_call(fn, args, kwargs)
        if caller.function.kind not in (Kind.COROUTINE, Kind.PLAIN):
            raise TypeError(f"{caller.function.scope} is a generator function; use get_or_call()")
        return await caller.call_async(values)  # type: ignore[no-any-return]

    # -- upkeep --------------------------------------------------------------------------

    def purge(
        self,
        *,
        tags: tuple[str, ...] | list[str] | str = (),
        namespace: str | None = None,
        model: str | None = None,
        older_than: float | str | None = None,
        key: str | None = None,
        expired: bool = False,
        all: bool = False,
    ) -> int:
        """Remove entries that match everything given, in every process of the host at once.

        `older_than` is an age (seconds or `1h`); `key` a key in hex or its first digits, 8 or
        more. Returns how many were removed, at least: of two tiers, the greater number. Raises
        ValueError when nothing is given, or when several keys begin with `key`.
        """
        now = self.setting.clock.wall()
        digest = None if key is None else self.shelf.digest_of(key_digits(key))
        if key is not None and digest is None:
            return 0
        selector = Selector(
            tags=(tags,) if isinstance(tags, str) else tuple(tags),
            namespace=namespace,
            model=model,
            key=digest or b"",
            older_than=None if older_than is None else now - parse_seconds(older_than),
            expired_before=now if expired else None,
        )
        if selector == Selector() and not all:
            raise ValueError("purge() was told nothing to remove; all=True removes everything")
        return self.shelf.purge(selector)

    def stats(self) -> CacheStats:
        """Counts of everything asked through this cache, decorated functions included."""
        return self.stats_of(self.total(), self.setting.rules.ttl)

    def resize(
        self,
        *,
        max_size: int | None = None,
        max_bytes: Size = None,
        store_max_bytes: Size = None,
    ) -> None:
        """Change bounds while running; what is not given stays. Raises ConfigError."""
        self.shelf.resize(
            max_size,
            None if max_bytes is None else parse_bytes(max_bytes, "max_bytes"),
            None if store_max_bytes is None else parse_bytes(store_max_bytes, "store_max_bytes"),
        )

    def flush(self, timeout: float = FLUSH_SECONDS) -> bool:
        """Wait until what was stored is durable; False if `timeout` seconds passed first."""
        return self.shelf.flush(timeout)

    def close(self) -> None:
        """Flush and close the store. Idempotent. The memory tier stays usable."""
        self.stop(FLUSH_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- inside --------------------------------------------------------------------------

    def _value_key(self, request: object, namespace: str) -> Key:
        serial = self.receiver.class_serial if self.store is None else None
        raw = canonical_args(("request",), (request,), serial)
        return self.keyer.call_key(VALUE_SCOPE, "", namespace, raw)

    def _value_ask(self, request: object, controls: Controls) -> Ask:
        key = self._value_key(request, controls.namespace)
        ask = Ask(
            key=key,
            meta=Meta(
                scope=VALUE_SCOPE,
                namespace=controls.namespace,
                tags=controls.tags,
                priority=controls.priority or "medium",
            ),
            controls=controls,
            call=_never,
            draft=self._draft_value,
            epoch=self.epoch,
        )
        meaning = self.shelf.meaning
        if meaning is not None and (wording := self._wording(request, controls.namespace)):
            ask.likeness = meaning.likeness(key, wording, ask.meta, controls.semantic)
        return ask

    def _wording(self, request: object, namespace: str) -> Wording | None:
        found = part(request)
        if found is None:
            return None
        text, rest, tools = found
        raw = canonical_args(("request",), (rest,))
        partition = self.keyer.call_partition(VALUE_SCOPE, "", namespace, raw)
        return Wording(text, partition, tools)

    def _draft_value(self, value: Any, seconds: float) -> Draft:
        kept = keep(value)
        if self.store is not None:
            persistable(kept)
        return Draft(kept.payload, kept.form, kept.thaw, kept.size, seconds)

    def _found(self, ask: Ask) -> Any:
        try:
            answer = self.answer(ask)
        except NotCached:
            return MISSING
        try:
            value = answer.value
        except Exception as error:
            if not self.spoilt(ask, answer, error):
                raise
            return MISSING
        self.tally.count(answer)
        self.log(answer, VALUE_SCOPE)
        return value

    def _plain_call(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Caller, tuple[Any, ...]]:
        # Bound methods are made anew at each access; their function and object are not.
        is_bound = inspect.ismethod(fn)
        if is_bound:
            method: Any = fn
            fn, args = method.__func__, (method.__self__, *args)
        with self.lock:
            # While a caller is held, its function is, so that the id is not given anew.
            caller = self._plain_callers.get(id(fn))
            if caller is not None:
                self._plain_callers.move_to_end(id(fn))
        if caller is None:
            function = describe(fn)
            if is_bound:
                function = replace(function, is_method=True)
            compares = self.shelf.meaning is not None
            question = guessed(askable(function)) if compares else ""
            caller = Caller(self, function, Options(question=question))
            self.register(caller)
            with self.lock:
                self._plain_callers[id(fn)] = caller
                if len(self._plain_callers) > MOST_PLAIN_CALLERS:
                    self._plain_callers.popitem(last=False)
        return caller, caller.bind(*args, **kwargs)


def _never() -> Any:
    raise AssertionError("only-if-cached never calls")
