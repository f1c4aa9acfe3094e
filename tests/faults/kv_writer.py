"""A process that writes blocks until it is killed, and says which were kept.

Lines on standard output, each written at once: `kept SEED NUMBER`, all blocks of that chain.
Usage: python kv_writer.py FOLDER SEED
"""

import sys
from hashlib import blake2b
from pathlib import Path

from thinkonce.kv.disk import segment
from thinkonce.kv.disk.tier import DiskTier
from thinkonce.kv.prefix.blocks import Block

MODEL = bytes(32)
BUDGET = 2**23  # reached within a second, so that segments are written anew and removed too
LENGTH = 6


def chain(seed, number):
    found, parent = [], bytes(16)
    for place in range(LENGTH):
        tokens = f"{seed} {number} {place}".encode().ljust(64)
        found.append(Block(blake2b(parent + tokens, digest_size=16).digest(), parent, tokens))
        parent = found[-1].id
    return found


def state_of(block):
    """Of varying size, told from any other."""
    size = 500 + int.from_bytes(block.id[:2], "little") % 20_000
    return (block.id * (size // 16 + 1))[:size]


def main(folder, seed):
    segment.SEGMENT_BYTES = 2**20
    tier, number = DiskTier(Path(folder), MODEL, BUDGET), 0
    print("ready", flush=True)
    while True:
        blocks = chain(seed, number)
        for block in blocks:
            tier.offer(block, memoryview(state_of(block)))
        if tier.flush(20) and tier.known(blocks) == LENGTH:
            print("kept", seed, number, flush=True)
        number += 1


if __name__ == "__main__":
    main(*sys.argv[1:])
