"""Numbers that several processes read and change, and lines they write to one place."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from thinkonce.gateway.workers.board import CELLS, Board
from thinkonce.gateway.workers.lines import CUT, WholeLines, pieces
from thinkonce.gateway.workers.shares import (
    SharedAllowance,
    SharedQuota,
    bounded_clients,
    bounded_servers,
    give_back_all,
    shared_room,
)
from thinkonce.settings import Client, Upstream
from thinkonce.testing import FakeClock
from thinkonce.upstream.line import Line
from thinkonce.upstream.room import CLIENTS
from thinkonce.upstream.server import Server, base_url

ADDER = """
import sys
from thinkonce.gateway.workers import board
# Whoever waits some 20 ms gives up, at the price of a miscount. On a busy machine a holder may
# stand still for longer; that the lock loses nothing shows where nobody gives up.
board.PATIENCE = 1_000_000
cell = board.Board(int(sys.argv[1])).cell("sum")
for _ in range(2000):
    with cell.held():
        first, second = cell.read()
        cell.write(first + 1, second + 2)
"""

WRITER = """
import sys
from thinkonce.gateway.workers.lines import WholeLines
out = WholeLines(1)
for turn in range(200):
    out.write("".join(f"{sys.argv[1] * 60} {line}\\n" for line in range(100)))
"""


@pytest.fixture
def board():
    board = Board.new()
    yield board
    board.close()


def spawn(script, *arguments, **more):
    command = [sys.executable, "-c", script, *arguments]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, env=environ, **more)


def test_processes_that_add_at_the_same_time_lose_nothing(board):
    cell = board.cell("sum", 10.0, 0.0)
    adders = [spawn(ADDER, str(board.fd), pass_fds=(board.fd,)) for _ in range(3)]
    assert [adder.wait(60) for adder in adders] == [0, 0, 0]
    assert cell.read() == (6010.0, 12000.0)


def test_a_cell_is_found_by_its_name_and_keeps_what_it_holds(board):
    board.cell("one", 1.0, 2.0).write(3.0, 4.0)
    assert board.cell("one", 1.0, 2.0).read() == (3.0, 4.0)
    assert board.cell("two", 1.0, 2.0).read() == (1.0, 2.0)


def test_two_workers_take_out_of_one_allowance(board):
    clock = FakeClock()
    cell = board.cell("alice", 6.0, clock.monotonic())
    one, two = (SharedAllowance(6, clock, board.cell("alice")) for _ in range(2))
    assert [each.take() for each in (one, two) * 4] == [True] * 6 + [False] * 2
    assert (one.has_one(), two.seconds_to_one()) == (False, 10)
    clock.advance(10)
    assert [two.has_one(), one.take(), two.take()] == [True, True, False]
    assert cell.read()[0] < 1


async def test_what_one_worker_keeps_leaves_less_room_for_the_other(board):
    clock = FakeClock()
    held = 100
    cell = board.cell("tenant")
    one, two = (SharedQuota(1000, lambda: held, clock, cell) for _ in range(2))
    assert not one.takes(1), "nothing is kept before it is known"
    for quota in (one, two):
        clock.advance(60)
        assert await quota.refresh()
    assert one.takes(600)
    assert not two.takes(400)
    assert two.takes(300)
    held = 1000
    clock.advance(60)
    assert await one.refresh()
    assert not one.has_room(1), "what was measured is not counted twice, nor forgotten"
    held = 0
    clock.advance(60)
    assert await one.refresh()
    assert one.has_room(1000)


async def test_a_server_gets_no_more_requests_from_two_workers_than_from_one(board):
    def server(place):
        return Server(base_url("http://h"), room=shared_room(board, "p", "http://h", 2, place, 2))

    one, two = server(0), server(1)
    here, there = Line("p", 9), Line("p", 9)
    assert here.take([one]) is one
    assert there.take([two]) is two
    assert (here.take([one]), there.take([two])) == (None, None)
    waiting = [asyncio.ensure_future(there.wait([two], 10)) for _ in range(2)]
    await asyncio.sleep(0)
    here.give_back(one)
    assert await waiting[0] is two, "given back by the one, found by the other"
    there.give_back(two)
    assert await waiting[1] is two
    assert (one.busy, two.busy) == (0, 2)
    upstreams = {"p": Upstream(urls=["http://h"], max_concurrent=2)}
    give_back_all(board, bounded_servers(upstreams), 1)  # it was killed
    assert here.take([one]) is one


async def test_a_client_has_no_more_under_way_at_two_workers_than_at_one(board):
    alice = Client(key_sha256="a" * 64, max_concurrent=2)
    name = f"alice {alice.key_sha256}"
    one, two = (shared_room(board, CLIENTS, name, 2, place, 2) for place in range(2))
    assert one.take()
    assert two.take()
    for room in (one, two):
        assert not room.has_one()
        assert not room.take()
    one.give_back()
    assert two.has_one()
    assert one.take()
    give_back_all(board, bounded_clients({"alice": alice}), 1)  # it was killed
    assert one.take()
    assert not two.has_one()
    assert bounded_clients({"bob": Client(key_sha256="b" * 64)}) == set()


HOLDER = """
import fcntl, sys
fcntl.lockf(int(sys.argv[1]), fcntl.LOCK_EX, 1, int(sys.argv[2]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_process_that_stopped_in_the_middle_hangs_nobody(board):
    board.cell("known", 1.0, 2.0)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "pass_fds": (board.fd,)}
    with spawn(HOLDER, str(board.fd), str(CELLS), **pipes) as holder:
        assert holder.stdout.readline() == b"held\n"
        assert board.cell("known").read() == (1.0, 2.0)
        assert board.cell("new") is None, "as if the board were full"
        holder.stdin.close()
    assert board.cell("new") is not None


def test_a_reader_that_is_behind_loses_no_line_and_one_that_is_gone_stops_nobody(monkeypatch):
    read, write = os.pipe()
    os.set_blocking(write, False)
    out, lines = WholeLines(write), [f"{number} {'x' * 1000}\n" for number in range(300)]
    writing = threading.Thread(target=lambda: [out.write(line) for line in lines])
    writing.start()
    with open(read, closefd=False) as pipe:
        assert [pipe.readline() for _ in lines] == lines
    writing.join(60)
    monkeypatch.setattr("thinkonce.gateway.workers.lines.PATIENCE", 0.0)
    for line in lines:
        out.write(line)
    os.close(read)
    os.close(write)


@pytest.mark.slow
def test_lines_of_several_processes_stay_whole(tmp_path: Path):
    read, write = os.pipe()
    writers = [spawn(WRITER, name, stdout=write) for name in "abc"]
    os.close(write)
    with open(read) as lines:
        seen = [line.split() for line in lines]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert {name for name, _ in seen} == {"a" * 60, "b" * 60, "c" * 60}
    assert len(seen) == 60_000


def test_a_line_without_its_end_waits_for_it(tmp_path: Path):
    with open(tmp_path / "log", "wb") as file:
        out = WholeLines(file.fileno())
        out.write("half")
        assert (tmp_path / "log").read_bytes() == b""
        out.write(" and half\nrest")
        assert (tmp_path / "log").read_bytes() == b"half and half\n"
        out.flush()
        assert (tmp_path / "log").read_bytes() == b"half and half\nrest"


def test_a_line_that_no_pipe_takes_in_one_piece_is_cut():
    text = b"a" * 100 + b"\n" + b"b\n" * 10
    parts = list(pieces(text, 20))
    assert parts[0] == b"a" * (20 - len(CUT)) + CUT
    assert b"".join(parts[1:]) == b"b\n" * 10
    assert max(map(len, parts)) <= 20
