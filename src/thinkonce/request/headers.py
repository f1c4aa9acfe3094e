"""Which request headers travel on, and which of them can change an answer.

Only listed headers are forwarded, and every forwarded one is in the key unless known harmless and
not named by the operator: a trace header in the key means no hit, silently; an unkeyed header that
changes the answer means a wrong one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable
from functools import lru_cache

import msgspec

__all__ = (
    "CLIENT_HEADERS",
    "ENGINE_HEADERS",
    "EVERY",
    "HARMLESS",
    "SECRETS",
    "Taken",
    "digest_of",
    "headers_named",
    "is_credential",
    "key_in",
    "take_headers",
    "with_one_type",
)

_FORWARDED = frozenset({b"accept", b"accept-language", b"content-type", b"content-language"})
_TYPES = (b"accept", b"content-type")
_FORWARDED_PREFIXES = (b"anthropic-", b"openai-")
# In these a client shows a key; the others beside them tell clients of one key apart.
SECRETS = (b"authorization", b"x-api-key", b"api-key")
# From a gateway to the engine that it started: that it is the one, and whose the request is.
ENGINE_HEADERS = (b"x-thinkonce-engine-secret", b"x-thinkonce-tenant")
# In these an administrator names a client, as it shows its key itself.
CLIENT_HEADERS = (b"x-thinkonce-client-authorization", b"x-thinkonce-client-api-key")
_CREDENTIAL = frozenset({*SECRETS, b"openai-organization", b"openai-project"})
HARMLESS = frozenset(
    {
        b"accept", b"accept-encoding", b"b3", b"baggage", b"cdn-loop", b"connection",
        b"content-length", b"content-type", b"forwarded", b"grpc-trace-bin", b"host",
        b"idempotency-key", b"keep-alive", b"origin", b"priority", b"referer", b"sentry-trace",
        b"te", b"traceparent", b"tracestate", b"transfer-encoding", b"user-agent", b"via",
        b"x-amzn-trace-id", b"x-cloud-trace-context", b"x-forwarded-for", b"x-forwarded-host",
        b"x-forwarded-port", b"x-forwarded-proto", b"x-real-ip", b"x-request-id",
    }
)  # fmt: skip
_HARMLESS_PREFIXES = (b"x-stainless-", b"sec-", b"x-b3-", b"x-datadog-")
_DROPPED = HARMLESS - _FORWARDED
# Addressed to us: controls, and a token that is nobody else's business.
_OURS = (b"cache-control", b"pragma", b"proxy-authorization")


class _Every(Container[bytes]):
    """All names but those that never travel, and those that are addressed to us."""

    def __contains__(self, name: object) -> bool:
        ours = name in _OURS or (isinstance(name, bytes) and name.startswith(b"x-thinkonce-"))
        return not (ours or name in _DROPPED)


# In place of names to be forwarded.
EVERY: Container[bytes] = _Every()


def is_credential(name: bytes) -> bool:
    """Whether a header of this name says who asks."""
    return name in _CREDENTIAL


def key_in(name: bytes, value: bytes) -> bytes | None:
    """The key that a header shows, None where it shows none: one key in whichever header, for
    clients of Anthropic have two ways.
    """
    if name == b"authorization":
        return _bearer(value)
    return value.strip() if name in SECRETS else None


def _bearer(value: bytes) -> bytes | None:
    scheme, _, key = value.partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else None


def headers_named(names: Iterable[str]) -> Container[bytes]:
    """What `names` stand for, as `take_headers` wants it; `*` stands for every header."""
    lowered = frozenset(name.lower().encode() for name in names)
    return EVERY if b"*" in lowered else lowered


class Taken(msgspec.Struct, frozen=True, gc=False):
    """`forward` goes upstream; `keyed` enters the key; `credential` makes the tenant.

    `credential` headers are not in `forward`: whether the client's or the gateway's own
    credential goes upstream is the pool's business.
    """

    forward: tuple[tuple[bytes, bytes], ...] = ()
    keyed: tuple[tuple[bytes, bytes], ...] = ()
    credential: tuple[tuple[bytes, bytes], ...] = ()


def take_headers(
    headers: Iterable[tuple[bytes, bytes]], extra: Container[bytes] = frozenset()
) -> Taken:
    """`headers` with names in lower case; `extra`: names the operator forwards besides.

    What is named there is in the key, whatever it is; `EVERY` names none.
    """
    forward, keyed, credential = [], [], []
    all_keyed = extra is not EVERY
    for pair in headers:
        name = pair[0]
        if name in _DROPPED and name not in extra:
            continue
        if name in _CREDENTIAL:
            credential.append(pair)
        elif name in _FORWARDED or name.startswith(_FORWARDED_PREFIXES) or name in extra:
            forward.append(pair)
            harmless = name in HARMLESS or name.startswith(_HARMLESS_PREFIXES)
            if not harmless or (all_keyed and name in extra):
                keyed.append(pair)
    # Order between different headers means nothing; between equal ones it does, and stays.
    keyed.sort(key=_name)
    credential.sort(key=_name)
    return Taken(tuple(forward), tuple(keyed), tuple(credential))


@lru_cache(maxsize=64)  # clients choose what is in them
def with_one_type(taken: Taken, *, stream: bool) -> Taken:
    """What goes along with a body that is known to be JSON, in UTF-8, of a request with a key.

    Its content type, and what it accepts, are the same for all who share an answer, unless they
    are in the key: a server may read a body, or write an answer, as they say.
    """
    accepts = b"text/event-stream" if stream else b"application/json"
    own = [pair for pair in taken.forward if pair[0] not in _TYPES or pair in taken.keyed]
    named = {name for name, _ in own}
    types = ((b"accept", accepts), (b"content-type", b"application/json"))
    own += [pair for pair in types if pair[0] not in named]
    return msgspec.structs.replace(taken, forward=tuple(own))


def _name(pair: tuple[bytes, bytes]) -> bytes:
    return pair[0]


def digest_of(value: bytes) -> str:
    """The SHA-256 of the credential alone, as `printf %s "$KEY" | sha256sum` gives it."""
    key = _bearer(value)
    return hashlib.sha256(value if key is None else key).hexdigest()
