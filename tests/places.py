"""Looks into the table of calls that only tests need."""

from __future__ import annotations

from collections.abc import Iterator

from thinkonce.host.flights import BUCKETS, Claim, FlightTable


def find(table: FlightTable, digest: bytes, now: float) -> Claim | None:
    """Who makes the call for `digest`, if anybody alive within his lease does."""
    with table._host.brief_lock:
        return table._live(digest, now)


def claims(table: FlightTable) -> Iterator[Claim]:
    """All that is written down, the dead and the expired too."""
    for bucket in range(BUCKETS):
        for way, tag in enumerate(table._tags(bucket)):
            claim = table._read(bucket, way) if tag else None
            if claim is not None:
                yield claim
