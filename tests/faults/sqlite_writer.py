"""A process that writes to a store until it is killed, and says what it may be held to.

Lines on standard output, each written at once:
    put NUMBER MONOTONIC      the write was given to the store
    flushed NUMBER            everything up to NUMBER was reported durable
Usage: python sqlite_writer.py STORE SEED NAMESPACE
"""

import math
import struct
import sys
import time
from hashlib import blake2b
from pathlib import Path

from thinkonce.clock import SYSTEM
from thinkonce.entry import Entry, Meta
from thinkonce.host.mapfile import HostFile, host_path
from thinkonce.likeness import Hint
from thinkonce.tiers.sqlite import SqliteTier
from thinkonce.tiers.tier import Key
from thinkonce.values import keep

FLUSH_EVERY = 40


def answer(seed, number):
    """What is stored under `key_of(seed, number)`: of varying size, told from any other."""
    return {"seed": seed, "number": number, "text": f"{seed}/{number} " * (1 + number * 37 % 400)}


def key_of(seed, number):
    return Key(None, blake2b(f"{seed} {number}".encode(), digest_size=32).digest())


def partition_of(number):
    return blake2b(b"%d" % (number % 3), digest_size=32).digest()


def vector_of(seed, number):
    """Packed: a scale and eight numbers, other ones for every question."""
    raw = blake2b(f"{seed} {number}".encode(), digest_size=8).digest()
    return struct.pack("<f8s", 1 / math.hypot(*struct.unpack("8b", raw)), raw)


def hint_of(seed, number):
    text, vector = f"{seed}/{number}?", vector_of(seed, number)
    return Hint(partition_of(number), text, "an embedder", vector, text.encode())


def say(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def main(path, seed, namespace):
    tier = SqliteTier(Path(path), secret=b"s" * 32, host=HostFile(host_path(path)))
    number = 0
    while True:
        number += 1
        kept = keep(answer(seed, number))
        meta = Meta(namespace=namespace, tags=(f"tag {number % 5}",))
        entry = Entry(
            None, kept.payload, meta, form=kept.form, thaw=kept.thaw, payload_size=kept.size,
            created_at=SYSTEM.wall(), epoch=tier.purges.epoch[0], hint=hint_of(seed, number),
        )  # fmt: skip
        tier.put(key_of(seed, number), entry)
        say("put", number, time.monotonic(), entry.epoch)
        if number % FLUSH_EVERY == 0 and tier.flush(20):
            say("flushed", number)


if __name__ == "__main__":
    main(*sys.argv[1:])
