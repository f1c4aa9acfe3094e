"""What goes over the socket between a leader and a follower in another process.

| length: 4 bytes | kind: 1 byte | payload |        length counts kind and payload

follower ──► leader    HELLO  version, digest of the call it wants to follow, then WANT*
leader ──► follower    CHUNK* ALIVE*, live, then one of LANDED FAILED ABANDONED ALONE
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum

import msgspec

__all__ = (
    "MAX_FRAME_BYTES",
    "Frame",
    "Kind",
    "Unframer",
    "frame",
    "hello",
    "said_hello",
    "said_want",
    "want",
)

HEAD = struct.Struct("!IB")
COUNT = struct.Struct("!Q")
VERSION = 2
MAX_FRAME_BYTES = 64 * 1024 * 1024  # longer: the other end speaks something else


class Kind(IntEnum):
    """What a frame says."""

    HELLO = 1  # version, digest
    CHUNK = 2  # bytes of the feed, as they were published
    ITEM = 3  # an encoded object of the feed
    ALIVE = 4  # no chunk, but the leader is at work
    LANDED = 5  # the encoded value: the end
    FAILED = 6  # type name and message of the error: the end
    ABANDONED = 7  # the leader went away: who still wants an answer leads
    WANT = 9  # how many chunks the follower wants, where they are made on demand
    ALONE = 8  # no place for this follower (too slow, not encodable): let him call himself


ENDS = frozenset({Kind.LANDED, Kind.FAILED, Kind.ABANDONED, Kind.ALONE})


class Frame(msgspec.Struct, frozen=True):
    kind: Kind
    payload: bytes = b""


def frame(kind: Kind, payload: bytes = b"") -> bytes:
    """The bytes of one frame. ValueError if it is longer than the other end would take."""
    if len(payload) >= MAX_FRAME_BYTES:
        raise ValueError(f"a payload of {len(payload)} bytes; at most {MAX_FRAME_BYTES - 1} fit")
    return HEAD.pack(len(payload) + 1, kind) + payload


def hello(digest: bytes) -> bytes:
    return frame(Kind.HELLO, bytes([VERSION]) + digest)


def said_hello(first: Frame) -> bytes:
    """The digest a follower asks for. ValueError if this is no greeting of our version."""
    if first.kind is not Kind.HELLO or first.payload[:1] != bytes([VERSION]):
        raise ValueError(f"expected a greeting of version {VERSION}, got {first.kind!r}")
    return first.payload[1:]


def want(count: int) -> bytes:
    """A follower wants the first `count` chunks."""
    return frame(Kind.WANT, COUNT.pack(count))


def said_want(heard: Frame) -> int:
    """How many chunks a follower wants. ValueError if it says anything else."""
    if heard.kind is not Kind.WANT or len(heard.payload) != COUNT.size:
        raise ValueError(f"after its greeting a follower says what it wants, got {heard.kind!r}")
    return int(COUNT.unpack(heard.payload)[0])


class Unframer:
    """Cuts a byte stream into frames, wherever its pieces were cut."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that `data` completes. ValueError for what is no frame."""
        rest = self._rest
        rest += data
        start = 0
        try:
            while len(rest) - start >= HEAD.size:
                length, kind = HEAD.unpack_from(rest, start)
                if not 1 <= length <= MAX_FRAME_BYTES:
                    raise ValueError(f"a frame of {length} bytes; 1 to {MAX_FRAME_BYTES} are sent")
                end = start + HEAD.size - 1 + length
                if len(rest) < end:
                    return
                payload = bytes(rest[start + HEAD.size : end])
                start = end
                yield Frame(Kind(kind), payload)
        finally:
            del rest[:start]
