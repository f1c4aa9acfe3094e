"""Which calls of one function are the same: the key of a call, and whether it still holds.

A key is made of the arguments as they are when the call is made. Lists, dicts and objects may be
others by the time the function reads them. So the key is made again from what the function was
given, once it has answered, and from copies before they are used in place of the arguments.
"""

from __future__ import annotations

from collections.abc import Callable

from thinkonce.calls.copies import Values, copied, may_change
from thinkonce.calls.questions import part
from thinkonce.calls.wrapper import scalar_key, slots_of, takes_containers
from thinkonce.functions import Function
from thinkonce.likeness import Wording
from thinkonce.outcome import Reason
from thinkonce.request.arguments import LocalClass, canonical_args
from thinkonce.tiers.tier import Key
from thinkonce.workings import Workings

__all__ = ("CallKeys",)


class CallKeys:
    """Thread-safe. Takes the bound values of a call, in the order of the parameters.

    Parameters in `ignore` do not count; `own` (the user's `key=`) gives what counts in place of
    the arguments. `warn` is told why a call cannot be cached.
    """

    def __init__(
        self,
        cache: Workings,
        function: Function,
        namespace: str,
        ignore: frozenset[str],
        own: Callable[[Values], object] | None,
        warn: Callable[[Reason, object], None],
    ) -> None:
        self.identity = function.identity + namespace.encode()
        self._cache, self._function, self._namespace = cache, function, namespace
        self._own, self._warn = own, warn
        counted = [(i, p) for i, p in enumerate(function.parameters) if p.name not in ignore]
        self._places = tuple(i for i, _ in counted)
        self._names = ("key",) if own else tuple(p.name for _, p in counted)
        self._slots = slots_of(function.parameters, ignore)
        has_receiver = function.is_method and 0 in self._places
        self._receiver = cache.receiver if has_receiver else None
        # The object of a method is not copied: what it does, it does as itself.
        self._copyable = self._places[1:] if has_receiver else self._places
        self._serial = cache.receiver.class_serial if cache.store is None else None
        # The key must be the one that the generated probe looks under.
        self._scalars = not (self._receiver or own or takes_containers(function))

    def key(self, values: Values) -> Key | None:
        """The key of a call, or None when its arguments have no canonical form.

        Over a persistent store, raises TypeError for a method of a nameless object and for a
        value of a class made inside a function: two would get each other's answers after a
        restart.
        """
        counted = self._counted(values)
        if self._scalars:
            scalars = scalar_key(self.identity, counted, self._slots)
            if scalars is not None:
                return self._key_of(scalars, lambda: canonical_args(self._names, counted))
        try:
            raw = canonical_args(self._names, counted, self._serial)
        except LocalClass:
            raise
        except TypeError as error:
            self._warn(Reason.UNKEYABLE, error)
            return None
        return self._key_of((self.identity, raw), lambda: raw)

    def wording(self, values: Values, name: str) -> Wording | None:
        """What may be said in other words: the parameter `name`, or the last turn in it.

        None where it is no text and no list of messages that ends with a user's.
        """
        counted = list(self._counted(values))
        place = self._names.index(name)
        found = part(counted[place])
        if found is None:
            return None
        text, counted[place], tools = found
        raw = canonical_args(self._names, tuple(counted), self._serial)
        keyer, function = self._cache.keyer, self._function
        partition = keyer.call_partition(function.scope, function.version, self._namespace, raw)
        return Wording(text, partition, tools)

    def is_intact(self, values: Values, key: Key) -> bool:
        """Whether `values`, with which the function was called, still make `key`."""
        if not may_change(values, self._places) or self._makes(values, key):
            return True
        self._warn(Reason.CHANGED, "an argument was changed while the call ran; pass a copy of it")
        return False

    def copies(self, values: Values, key: Key) -> tuple[Values | None, bool]:
        """`values` with copies of what can change, and whether everything could be copied.

        None where they make another key than `key`: the arguments have changed since.
        """
        own, complete = copied(values, self._copyable, self._serial)
        return (own if own is values or self._makes(own, key) else None), complete

    def _counted(self, values: Values) -> Values:
        """The values that make the identity."""
        if self._own is not None:
            return (self._own(values),)
        counted = tuple([values[place] for place in self._places])
        if self._receiver is None:
            return counted
        persistent = self._cache.store is not None
        name = self._receiver.name(values[0], self._function.scope, persistent=persistent)
        return (name, *counted[1:])

    def _key_of(self, local: tuple[object, ...], raw: Callable[[], bytes]) -> Key:
        keyer, function, namespace = self._cache.keyer, self._function, self._namespace
        return Key(
            local,
            lambda: keyer.call_digest(function.scope, function.version, namespace, raw()),
        )

    def _makes(self, values: Values, key: Key) -> bool:
        try:
            now = self.key(values)
        except Exception:  # `key=` and `__thinkonce_key__` are the user's code
            return False
        return now is not None and now.local == key.local
