"""A recorded answer in its wire form, and what is said about it.

`Reply` is what `Form.REPLY` entries hold: the upstream's own bytes, so that a hit loses nothing,
plus the few facts that headers, metrics and the other shape need.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from thinkonce.errors import CorruptEntry

__all__ = ("Gist", "Reply", "Shape", "decode_reply", "encode_reply")


class Shape(StrEnum):
    """How the answer came, not how it is handed out: either is made from the other."""

    JSON = "json"
    STREAM = "stream"


class Reply(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One complete answer. `body` is set for JSON, `events` (data of each event) for a stream.

    `events` hold neither comments nor the end mark `[DONE]`. `usage` is the JSON text of the
    usage object, b"" where none is known; `usage_asked` tells that the recorded stream had been
    asked for it. `source_id` and `created` are the upstream's own.
    """

    status: int
    content_type: str
    shape: Shape
    body: bytes = b""
    events: tuple[bytes, ...] = ()
    usage: bytes = b""
    usage_asked: bool = False
    usage_estimated: bool = False
    finishes: tuple[str, ...] = ()
    model: str = ""
    source_id: str = ""
    created: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    unnamed: bool = False  # a stream without `event:` lines, though its protocol has them
    first_byte: float = 0.0  # seconds until a stream began to come; 0: unknown

    @property
    def tokens(self) -> int:
        """What a hit saves."""
        return self.prompt_tokens + self.completion_tokens


class Gist(msgspec.Struct, frozen=True, gc=False):
    """What `request.storable` needs to know of an answer, finished or still under way.

    `finishes` has one item per answer (choice, vector) in order of index; None: not ended yet.
    `texts` are the texts of answers that must be JSON if JSON was asked for.
    """

    status: int = 200
    done: bool = False  # the protocol's own end mark was seen
    failed: bool = False  # an error object or event, or data that cannot be read
    oversized: bool = False  # more bytes than the recorder keeps
    odd: bool = False  # a number or a text in it has no place in a record
    finishes: tuple[str | None, ...] = ()
    empty: bool = False  # an answer has neither text nor call
    texts: tuple[str, ...] = ()
    size: int = 0  # bytes of the answer so far


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Reply)


def encode_reply(reply: Reply) -> bytes:
    """Raises ValueError or OverflowError for a text or number that MessagePack cannot hold."""
    return _encoder.encode(reply)


def decode_reply(payload: bytes) -> Reply:
    """Raises CorruptEntry when `payload` is not a reply."""
    try:
        return _decoder.decode(payload)
    except msgspec.DecodeError as error:
        raise CorruptEntry("reply", "decoding a recorded answer") from error
