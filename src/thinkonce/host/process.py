"""Which process wrote this, and is it still there?

A process id alone is not a name: ids are used again. So a process is named by its id, the boot
of the machine, its id space (containers have their own) and its start time, where the system
tells these; elsewhere by its id alone, and a lease decides what the name cannot.
"""

from __future__ import annotations

import os
import sys
import zlib

import msgspec

__all__ = ("Process", "is_alive", "this_process")

GONE = b"ZXx"  # zombie or dead: it runs no more code, though its id is still taken


class Process(msgspec.Struct, frozen=True):
    """`boot` and `space` are 32-bit digests, `started` is in clock ticks; 0 where unknown."""

    pid: int
    boot: int = 0
    space: int = 0
    started: int = 0


_this = Process(0)  # what never changes in a process costs two system calls: asked once


def this_process() -> Process:
    """The name of the calling process, also right after a fork."""
    global _this
    pid = os.getpid()
    if _this.pid != pid:
        _state, started = state_of(pid)
        _this = Process(pid, boot_number(), space_number(), started)
    return _this


def is_alive(process: Process) -> bool:
    """False only if `process` has certainly ended: what cannot be seen counts as alive."""
    me = this_process()
    if process.pid == me.pid and process.started == me.started and process.boot == me.boot:
        return True
    if process.boot != me.boot:
        return False
    if process.space != me.space:
        return True
    if me.started:
        state, started = state_of(process.pid)
        return bool(state) and state not in GONE and started == process.started
    return is_pid_taken(process.pid)


def state_of(pid: int) -> tuple[bytes, int]:
    """State letter and start time in clock ticks since boot; nothing where that is not told."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            # The second field is a name in parentheses that may hold anything.
            fields = file.read().rpartition(b")")[2].split()
        return fields[0], int(fields[19])
    except (OSError, IndexError, ValueError):
        return b"", 0


def boot_number() -> int:
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb", buffering=0) as file:
            return zlib.crc32(file.read().strip())
    except OSError:
        return 0


def space_number() -> int:
    try:
        return os.stat("/proc/self/ns/pid").st_ino & 0xFFFF_FFFF
    except OSError:
        return 0


if sys.platform == "win32":
    import ctypes

    QUERY_LIMITED_INFORMATION, STILL_ACTIVE = 0x1000, 259

    def is_pid_taken(pid: int) -> bool:
        # Not os.kill: on Windows signal 0 is an interrupt.
        kernel = ctypes.windll.kernel32
        handle = kernel.OpenProcess(QUERY_LIMITED_INFORMATION, False, pid)
        if not handle:
            return False
        code = ctypes.c_ulong()
        known = kernel.GetExitCodeProcess(handle, ctypes.byref(code))
        kernel.CloseHandle(handle)
        return not known or code.value == STILL_ACTIVE

else:

    def is_pid_taken(pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            return True  # it is there, but not ours to signal
        return True
