"""Keys: who asks whom for what, as one hash that tells nothing of the prompt.

    request   version, endpoint, pool, tenant, namespace, label, mode, identity, headers
              [, query [, sample]]
    override  version, endpoint, pool, tenant, namespace, label, model [, query]
    call      version, function, its version, namespace, arguments
    partition one of these without the question, for questions in other words

The parts are one MessagePack array, so each carries its length: no two lists of parts give the
same bytes. Those bytes are the key inside the process (exact, no collision); everywhere else it
is BLAKE3 of them, keyed with the installation's secret.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import msgspec
from blake3 import blake3

from thinkonce.request.controls import Controls
from thinkonce.request.headers import key_in
from thinkonce.tiers.tier import Key

__all__ = (
    "ANONYMOUS",
    "CONTEXT_FREE",
    "KEY_VERSION",
    "Keyer",
    "ignoring",
    "request_parts",
    "wanted_parts",
)

KEY_VERSION = 1  # of the parts below; a change makes every stored answer unfindable
ANONYMOUS = "anonymous"
CONTEXT_FREE = "context-free"  # how a mode begins

_LOCAL_BYTES = 16 * 1024  # above, hashing once is cheaper than comparing at every look-up
_MAX_CREDENTIAL = 8192  # bytes of one that is remembered; a long token takes half of it
_MAX_TENANTS = 4096  # remembered at a time; a bound, not a limit on how many there are

_encode = msgspec.msgpack.Encoder(order="sorted").encode


class Keyer:
    """Makes keys under one installation secret (32 bytes). Thread-safe."""

    def __init__(self, secret: bytes) -> None:
        self.secret = secret
        self._tenants: dict[tuple[tuple[bytes, bytes], ...], str] = {}

    def tenant(self, credential: Sequence[tuple[bytes, bytes]]) -> str:
        """32 hex digits; "anonymous" without a credential. Memoised.

        A key is one client's in whichever header it shows it: Anthropic's clients have two ways,
        and change between them with their versions.
        """
        if not credential:
            return ANONYMOUS
        sent = tuple(credential)
        known = self._tenants.get(sent)
        return known if known is not None else self._new_tenant(sent)

    def _new_tenant(self, sent: tuple[tuple[bytes, bytes], ...]) -> str:
        shown = tuple(sorted({_as_bearer(*pair) for pair in sent}))
        tenant = self._digest(_encode((KEY_VERSION, "tenant", shown))).hex()[:32]
        if sum(len(name) + len(value) for name, value in sent) > _MAX_CREDENTIAL:
            return tenant
        if len(self._tenants) >= _MAX_TENANTS:
            self._tenants.clear()
        self._tenants[sent] = tenant
        return tenant

    def call_key(
        self,
        function: str,
        version: str,
        namespace: str,
        args: bytes,
        local: Hashable | None = None,
    ) -> Key:
        """For a Python call: `args` from `canonical_args`; `local` None: made from the parts."""
        parts = _call_parts(function, version, namespace, args)
        if local is None:
            return self.key_of(parts)
        return Key(local, lambda: self._digest(parts))

    def call_digest(self, function: str, version: str, namespace: str, args: bytes) -> bytes:
        """The digest alone, for a key whose local form needs none of the parts."""
        return self._digest(_call_parts(function, version, namespace, args))

    def partition_of(self, parts: bytes) -> bytes:
        """What requests have in common that differ in their question: `parts` are without it."""
        return self._digest(_encode((KEY_VERSION, "partition", parts)))

    def call_partition(self, function: str, version: str, namespace: str, args: bytes) -> bytes:
        """The same of Python calls."""
        return self.partition_of(_call_parts(function, version, namespace, args))

    def key_of(self, parts: bytes) -> Key:
        """The key of what `request_parts` gave."""
        if len(parts) > _LOCAL_BYTES:
            digest = self._digest(parts)
            return Key(digest, digest)
        return Key(parts, lambda: self._digest(parts))

    def _digest(self, parts: bytes) -> bytes:
        return blake3(parts, key=self.secret).digest()


def request_parts(
    where: tuple[str, str, str, str],
    wanted: tuple[str, str, bool],
    identity: dict[str, Any],
    headers: Sequence[tuple[bytes, bytes]] = (),
    query: bytes = b"",
    sample: int = 0,
) -> bytes:
    """What the key of an HTTP request is made of.

    `where` is (endpoint, pool, tenant, namespace), `wanted` what `wanted_parts` gave; `sample`
    counts the answers kept to one request, and there is one where the label is the key.
    """
    label, mode, override = wanted
    # What is not there is left out: the older form of the key.
    asked = (query, sample) if sample else (query,) if query else ()
    if override:
        model = identity.get("model")
        return _encode((KEY_VERSION, "request", *where, "override", label, model, *asked))
    return _encode((KEY_VERSION, "request", *where, label, mode, identity, headers, *asked))


def wanted_parts(controls: Controls, ignored: str = "") -> tuple[str, str, bool]:
    """Label, mode, and whether the label is the key. `ignored`: see `ignoring`.

    What an answer may stand on is part of its key: an approximate one is none to who says `exact`,
    and who says nothing gets what the engine's own settings say.
    """
    if controls.override:
        return controls.label, "", True
    mode = ignored if controls.context_aware else f"{CONTEXT_FREE} {ignored}".rstrip()
    if controls.reuse:
        mode = f"reuse {controls.reuse} {mode}".rstrip()
    return "" if controls.batch_mode else controls.label, mode, False


def ignoring(fields: Iterable[str]) -> str:
    """What a key says of the fields that the configuration leaves out of it; "" for none.

    An answer stored while `user` was ignored is no answer to a request without `user` once that
    counts again.
    """
    names = sorted(fields)
    return "ignoring " + msgspec.json.encode(names).decode() if names else ""


def _call_parts(function: str, version: str, namespace: str, args: bytes) -> bytes:
    return _encode((KEY_VERSION, "call", function, version, namespace, args))


def _as_bearer(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    key = key_in(name, value)
    return (name, value) if key is None else (b"authorization", b"Bearer " + key)
