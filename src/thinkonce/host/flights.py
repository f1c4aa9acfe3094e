"""Which process of this host makes which call, in the mapped file: digest -> owner, socket, lease.

    bucket of a digest:  | 16 tags | 16 slots |      tag 0 = free, else the digest's first 8 bytes

    claim ──► ours    nobody had it, or its owner died or outlived its lease
          ──► theirs  somebody has it: connect to `address`
          ──► None    the bucket is full: no sharing for this key, no error

Every change is made under the file's lock, and a slot counts only once its tag is written, so a
process that dies in the middle leaves a free slot. Nothing here is trusted further than its
checksum: another layout version may have written it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable

import msgspec

from thinkonce.host.mapfile import FLIGHTS_SIZE, HostFile
from thinkonce.host.process import Process, is_alive, this_process

__all__ = ("MAX_ADDRESS_BYTES", "Claim", "FlightTable")

WAYS = 16
TAGS = struct.Struct(f"={WAYS}Q")
TAG = struct.Struct("=Q")
# digest, pid, boot, space, purge epoch, sequence, start time, length of the address, address,
# checksum
FIXED = struct.Struct("=32s4IQQH110sI")
CHECKED = struct.Struct("=32s4IQQH110s")  # the same without the checksum, and what follows then
REST = struct.Struct(f"=I{-FIXED.size % 8}xd32s")
SEQUENCE_AT = 32 + 16
MAX_ADDRESS_BYTES = 110
LEASE_AT = -(-FIXED.size // 8) * 8
LEASE = struct.Struct("=d")
WAITS_AT = LEASE_AT + LEASE.size
SLOT_BYTES = WAITS_AT + 32
BUCKET_BYTES = TAGS.size + WAYS * SLOT_BYTES
BUCKETS = FLIGHTS_SIZE // BUCKET_BYTES
NOBODY = bytes(32)


class Claim(msgspec.Struct, frozen=True):
    """A place in the table. `ours`: given to this caller, to be released by it.

    `until` is when the lease ended as this was read; `sequence` tells this claim from all others.
    `epoch` is one more than the purge epoch under which the call began, 0 where nobody said.
    """

    digest: bytes
    owner: Process
    sequence: int
    address: bytes
    until: float
    at: int
    ours: bool = False
    epoch: int = 0


class FlightTable:
    """Thread-safe, and safe between processes. Instants are on the host's monotonic clock.

    Methods raise TierError when the lock is not to be had in time. `full` counts the claims that
    found no place.
    """

    def __init__(self, host: HostFile) -> None:
        self._host = host
        self.full = 0

    def claim(
        self, digest: bytes, address: bytes, now: float, until: float, *, epoch: int = 0
    ) -> Claim | None:
        """Make the call for `digest` ours until `until`, or say whose it is."""
        if len(address) > MAX_ADDRESS_BYTES:
            raise ValueError(f"address of {len(address)} bytes; at most {MAX_ADDRESS_BYTES} fit")
        with self._host.brief_lock:
            place = self._place(digest, now)
            if isinstance(place, Claim):
                return place
            if place is None:
                self.full += 1
                return None
            bucket, way = place
            claim = Claim(
                digest=digest,
                owner=this_process(),
                sequence=self._host.next_sequence(),
                address=address,
                until=until,
                at=slot_at(bucket, way),
                ours=True,
                epoch=epoch,
            )
            self._write(bucket, way, claim)
            return claim

    def renew(self, claim: Claim, until: float) -> bool:
        """Prolong the lease; False if the claim is no longer ours."""
        with self._host.brief_lock:
            if claim.owner != this_process() or not self._holds(claim):
                return False
            LEASE.pack_into(self._host.flights, claim.at + LEASE_AT, until)
            return True

    def release(self, *claims: Claim) -> bool:
        """Give their places back; False if one was somebody else's already.

        In a forked child they are the parent's, and stay.
        """
        ours = [claim for claim in claims if claim.owner == this_process()]
        if not ours:
            return False
        with self._host.brief_lock:
            freed = [self._free(claim) for claim in ours]
        return len(ours) == len(claims) and all(freed)

    def depose(self, claim: Claim) -> bool:
        """Free the place of an owner who is dead or whose call nobody new may join.

        False if another has it by now.
        """
        with self._host.brief_lock:
            return self._free(claim)

    def may_wait(self, ours: Iterable[Claim], digest: bytes, now: float) -> bool:
        """Note that all of `ours` wait for the call of `digest`; False if that is a circle.

        A claim notes one wait, its latest: circles through others are ended by their leases.
        """
        with self._host.brief_lock:
            held = [claim for claim in ours if self._holds(claim)]
            names = {claim.digest for claim in held}
            seen: set[bytes] = set()
            ahead = digest
            while ahead not in seen:
                if ahead in names:
                    return False
                seen.add(ahead)
                owner = self._live(ahead, now)
                if owner is None:
                    break
                ahead = self._waits_for(owner)
            for claim in held:
                self._note_wait(claim, digest)
            return True

    def stop_waiting(self, ours: Iterable[Claim]) -> None:
        """Take back what `may_wait` noted."""
        with self._host.brief_lock:
            for claim in ours:
                if self._holds(claim):
                    self._note_wait(claim, NOBODY)

    # -- under the lock ------------------------------------------------------------------

    def _place(self, digest: bytes, now: float) -> Claim | tuple[int, int] | None:
        """Who holds `digest`; else bucket and way of a place for it; None if there is none."""
        bucket, tag = bucket_of(digest), tag_of(digest)
        tags = self._tags(bucket)
        if tag in tags:
            for way in range(WAYS):
                claim = self._read(bucket, way) if tags[way] == tag else None
                if claim is not None and claim.digest == digest:
                    return claim if is_live(claim, now) else (bucket, way)
        if 0 in tags:
            return bucket, tags.index(0)
        for way in range(WAYS):
            claim = self._read(bucket, way)
            if claim is None or not is_live(claim, now):
                return bucket, way
        return None

    def _free(self, claim: Claim) -> bool:
        if not self._holds(claim):
            return False
        bucket, way = place_of(claim.at)
        TAG.pack_into(self._host.flights, bucket * BUCKET_BYTES + way * TAG.size, 0)
        return True

    def _live(self, digest: bytes, now: float) -> Claim | None:
        bucket, tag = bucket_of(digest), tag_of(digest)
        for way, found in enumerate(self._tags(bucket)):
            claim = self._read(bucket, way) if found == tag else None
            if claim is not None and claim.digest == digest:
                return claim if is_live(claim, now) else None
        return None

    def _tags(self, bucket: int) -> tuple[int, ...]:
        return TAGS.unpack_from(self._host.flights, bucket * BUCKET_BYTES)

    def _read(self, bucket: int, way: int) -> Claim | None:
        """What is written in a slot; None if it does not stand up to its checksum."""
        at = slot_at(bucket, way)
        region = self._host.flights
        fields = FIXED.unpack_from(region, at)
        digest, pid, boot, space, epoch, sequence, started, length, address, check = fields
        if check != checksum(region[at : at + FIXED.size - 4]) or length > MAX_ADDRESS_BYTES:
            return None
        (until,) = LEASE.unpack_from(region, at + LEASE_AT)
        owner = Process(pid, boot, space, started)
        return Claim(digest, owner, sequence, address[:length], until, at, epoch=epoch)

    def _write(self, bucket: int, way: int, claim: Claim) -> None:
        region = self._host.flights
        tag_at = bucket * BUCKET_BYTES + way * TAG.size
        TAG.pack_into(region, tag_at, 0)
        owner, at = claim.owner, claim.at
        whose = (owner.pid, owner.boot, owner.space)
        fields = (claim.digest, *whose, claim.epoch, claim.sequence, owner.started)
        checked = CHECKED.pack(*fields, len(claim.address), claim.address)
        rest = REST.pack(checksum(checked), claim.until, NOBODY)
        region[at : at + SLOT_BYTES] = checked + rest
        TAG.pack_into(region, tag_at, tag_of(claim.digest))

    def _holds(self, claim: Claim) -> bool:
        """Is the place of `claim` still the same claim's?"""
        bucket, way = place_of(claim.at)
        region, at = self._host.flights, claim.at
        (tag,) = TAG.unpack_from(region, bucket * BUCKET_BYTES + way * TAG.size)
        (sequence,) = TAG.unpack_from(region, at + SEQUENCE_AT)
        if not tag or sequence != claim.sequence:  # a number is never given twice
            return False
        return bool(region[at : at + len(claim.digest)] == claim.digest)

    def _waits_for(self, claim: Claim) -> bytes:
        return bytes(self._host.flights[claim.at + WAITS_AT : claim.at + SLOT_BYTES])

    def _note_wait(self, claim: Claim, digest: bytes) -> None:
        self._host.flights[claim.at + WAITS_AT : claim.at + SLOT_BYTES] = digest


def is_live(claim: Claim, now: float) -> bool:
    return now < claim.until and is_alive(claim.owner)


def checksum(content: memoryview | bytes) -> int:
    return zlib.crc32(content) or 1  # zeros, as in a new file, are no claim


def tag_of(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "little") or 1


def bucket_of(digest: bytes) -> int:
    # Other bytes than the tag's: they are keyed hashes, so any will do.
    return int.from_bytes(digest[8:12], "little") % BUCKETS


def slot_at(bucket: int, way: int) -> int:
    return bucket * BUCKET_BYTES + TAGS.size + way * SLOT_BYTES


def place_of(at: int) -> tuple[int, int]:
    bucket, inside = divmod(at, BUCKET_BYTES)
    return bucket, (inside - TAGS.size) // SLOT_BYTES
