"""What is freed goes back to the system, in a process of its own: the setting is for all of one."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import sys
from thinkonce.kv.serving.line.heap import give_blocks_back
if sys.argv[1] == "given back" and not give_blocks_back():
    print("skipped"); raise SystemExit

def held():
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Anonymous:")) / 1024

def block():
    return bytearray(b'x') * (6 * 2**20)

del (first := [block()])[:]  # from here on an untold allocator keeps blocks of this size
blocks, between = [], []
for _ in range(40):
    blocks.append(block())
    between.append(bytearray(200_000))
before = held()
del blocks[:]
print(before - held())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="about a setting of glibc")
def test_memory_of_blocks_that_are_gone_is_the_system_s_again() -> None:
    given = subprocess.run(
        [sys.executable, "-c", SCRIPT, "given back"], capture_output=True, text=True, timeout=120
    )
    assert given.returncode == 0, given.stderr
    if given.stdout.strip() == "skipped":
        pytest.skip("this C library has no mallopt")
    assert float(given.stdout) > 0.9 * 40 * 6
