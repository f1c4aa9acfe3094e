"""Lines that wait for whoever reads them: bounded, counted where they are lost."""

from __future__ import annotations

import errno
import io
import logging
import threading

import pytest

from thinkonce.web.line_queue import MOST_WAITING, LineQueue


class Reader(io.TextIOBase):
    """Takes nothing until it is let go."""

    def __init__(self) -> None:
        self.begun, self.may = threading.Event(), threading.Event()
        self.got = ""

    def write(self, text: str) -> int:
        self.begun.set()
        assert self.may.wait(10)
        self.got += text
        return len(text)


def test_what_is_beyond_the_bound_is_lost_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    reader = Reader()
    queue, line = LineQueue(reader), "x" * 999 + "\n"
    queue.write("first\n")
    assert reader.begun.wait(10)
    for _ in range(MOST_WAITING // len(line) + 100):
        queue.write(line)
    with caplog.at_level(logging.WARNING, "thinkonce"):
        reader.may.set()
        assert queue.end(10.0)
    assert reader.got.startswith("first\nxxx")
    assert len(reader.got) <= MOST_WAITING
    assert [record.getMessage() for record in caplog.records] == [
        "lines of this log that are lost, because it took no more: 100"
    ]


def test_what_was_written_comes_in_order() -> None:
    reader = Reader()
    reader.may.set()
    queue = LineQueue(reader)
    for number in range(1000):
        queue.write(f"{number}\n")
    assert queue.end(10.0)
    queue.write("1000\n")  # at once
    assert reader.got.split() == [str(number) for number in range(1001)]


def test_who_writes_to_nobody_is_told() -> None:
    closed = io.StringIO()
    closed.close()
    queue = LineQueue(closed)
    queue.write("lost\n")
    assert queue.end(10.0)
    with pytest.raises(OSError, match="closed"):
        queue.write("more\n")


class Disk(io.StringIO):
    """Full until it is not."""

    full = True

    def write(self, text: str) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, "no space left on device")
        return super().write(text)


def test_a_full_disk_loses_lines_until_it_has_room(caplog: pytest.LogCaptureFixture) -> None:
    disk = Disk()
    queue = LineQueue(disk)
    queue.write("lost\n")
    with queue._changed:
        assert queue._changed.wait_for(lambda: queue._lost, 10.0)
    disk.full = False
    with caplog.at_level(logging.WARNING, "thinkonce"):
        queue.write("kept\n")
        assert queue.end(10.0)
    assert disk.getvalue() == "kept\n"
    assert "it took no more: 1" in caplog.text
