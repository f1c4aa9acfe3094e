"""A graph asked what it takes while another thread adds to it, in a process that may die of it."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
import threading

import numpy as np

from thinkonce.meaning.index.graph import GraphIndex
from thinkonce.meaning.index.packed import pack

index, rows = GraphIndex(64), np.random.default_rng(1).normal(size=(4000, 64)).astype(np.float32)
rows /= np.linalg.norm(rows, axis=1)[:, None]


def add():
    for number, row in enumerate(rows):
        index.put(b"%d" % number, pack(row))


adding = threading.Thread(target=add)
sys.setswitchinterval(1e-5)
adding.start()
seen = 0
while adding.is_alive():
    assert index.nbytes >= seen
    seen = index.nbytes
assert seen > rows.size, seen
"""


def test_what_it_takes_may_be_asked_while_rows_come() -> None:
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120
    )
    assert found.returncode == 0, found.stderr
