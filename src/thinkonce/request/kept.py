"""The request an entry answers, kept beside the answer: exactly what its key was made of.

With it a key can be made again under another secret or for another tenant, and two requests can
be compared. Controls, ignored fields, credentials and `stream` are not part of it, as they are
not part of the key.

    parts (MessagePack, see `key`) ──► pack ──► | 1 | deflate, with a dictionary of common names |
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from thinkonce.errors import CorruptEntry
from thinkonce.request.key import KEY_VERSION, request_parts

__all__ = ("MOST_PACKED", "KeptRequest", "may_hold_credential", "pack", "read_parts", "unpack")

# Larger ones, images as a rule, are not kept. Bytes, packed.
MOST_PACKED = 64 * 1024
MOST_PARTS = 64 * 1024 * 1024  # so that a damaged or hostile file cannot fill memory
_FORMAT = b"\x01"
_SHORT = 3500  # bytes of parts, with the names all in reach of one another
# Part of the format: names that requests share, so that short ones become shorter too.
_NAMES = (
    b'choices{"type":"object","properties":{"type":"string","description":"required":["'
    b"function\xa4name\xa8messages\x91\x82\xa7content\xa6system\xa4role\xa9assistant\xa5tools"
    b"\xabtemperature\xaamax_tokens\xa5model\xa6gpt-4o\x82\xa7content\xa4user\xa4role"
    b"\xa7request\xb0chat/completions\xa4main"
)

# Members of a URL's query that say how to answer. A credential may be called anything else.
_HARMLESS_MEMBERS = frozenset({b"alt", b"api-version", b"api_version", b"beta", b"version"})
_is_credential_header = re.compile(
    rb".*(cookie|key|token|secret|passw|signature|credential|auth|session).*", re.DOTALL
).fullmatch

_decode = msgspec.msgpack.Decoder(list[Any]).decode


class KeptRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """What of a request counted. `identity` is the body's, as the dialect gave it.

    `override`: the label is the key, `identity` then holds the model alone.
    """

    endpoint: str
    pool: str
    tenant: str
    namespace: str = ""
    label: str = ""
    mode: str = ""
    override: bool = False
    identity: dict[str, Any] = {}
    headers: tuple[tuple[str, str], ...] = ()
    query: str = ""
    sample: int = 0

    def parts(self) -> bytes:
        """What the key is made of; `read_parts` undoes it."""
        headers = [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in self.headers
        ]
        return request_parts(
            (self.endpoint, self.pool, self.tenant, self.namespace),
            (self.label, self.mode, self.override),
            self.identity,
            headers,
            self.query.encode("latin-1"),
            self.sample,
        )


def may_hold_credential(query: bytes, headers: Sequence[tuple[bytes, bytes]] = ()) -> bool:
    """Whether a URL's query has members that are not known, or a header is called as
    credentials are.

    Such a request is not kept: what was forwarded for the model's eyes is not for a file.
    """
    names = [
        member.partition(b"=")[0] for member in query.replace(b";", b"&").split(b"&") if member
    ]
    return not all(unquote_to_bytes(name) in _HARMLESS_MEMBERS for name in names) or any(
        _is_credential_header(name) for name, _ in headers
    )


def pack(parts: bytes) -> bytes:
    """b"" where the request is too large to be kept."""
    # A quarter of a megabyte is set up for what may come; what is short needs no more than this.
    sizes = (-12, 5) if len(parts) <= _SHORT else (-15, 8)
    packer = zlib.compressobj(1, zlib.DEFLATED, *sizes, zdict=_NAMES)
    packed = _FORMAT + packer.compress(parts) + packer.flush()
    return packed if len(packed) <= MOST_PACKED else b""


def unpack(packed: bytes) -> bytes:
    """The parts. Raises CorruptEntry for bytes that `pack` did not make."""
    if packed[:1] != _FORMAT:
        raise CorruptEntry("request", f"reading a kept request of format {packed[:1].hex() or '?'}")
    unpacker = zlib.decompressobj(wbits=-15, zdict=_NAMES)
    try:
        parts = unpacker.decompress(packed[1:], MOST_PARTS)
    except zlib.error as error:
        raise CorruptEntry("request", "unpacking a kept request") from error
    if not unpacker.eof:
        raise CorruptEntry("request", "unpacking a kept request that is cut off")
    return parts


def read_parts(parts: bytes) -> KeptRequest:
    """Raises CorruptEntry for parts that are no request's, or of another version."""
    try:
        return _read(_decode(parts))
    except (msgspec.MsgspecError, ValueError, TypeError, AttributeError) as error:
        raise CorruptEntry("request", "reading a kept request") from error


def _read(parts: list[Any]) -> KeptRequest:
    version, kind, endpoint, pool, tenant, namespace, *rest = parts
    if (version, kind) != (KEY_VERSION, "request"):
        raise ValueError(f"version {version} of a {kind}")
    where = KeptRequest(endpoint, pool, tenant, namespace)
    replace = msgspec.structs.replace
    if rest[0] == "override" and len(rest) in (3, 4) and not isinstance(rest[2], dict):
        _, label, model, *query = rest
        identity = {} if model is None else {"model": model}
        found = replace(where, label=label, override=True, identity=identity)
    else:
        label, mode, identity, headers, *query = rest
        if len(query) == 2:
            where = replace(where, sample=int(query.pop()))
        pairs = tuple((_text(name), _text(value)) for name, value in headers)
        found = replace(where, label=label, mode=mode, identity=identity, headers=pairs)
    return replace(found, query=_text(query[0])) if query else found


def _text(raw: bytes) -> str:
    return raw.decode("latin-1")
