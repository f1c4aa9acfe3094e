"""Unix sockets between processes of one user: where they lie, and who is at the other end."""

from __future__ import annotations

import os
import socket
import stat
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from thinkonce.host.process import Process, is_alive, this_process

__all__ = (
    "connect",
    "is_available",
    "is_same_user",
    "listen",
    "socket_name",
    "socket_path",
    "sweep",
)

# The kernel's field holds 108 bytes on Linux, 104 on macOS, the closing zero included.
MAX_PATH_BYTES = 103
BACKLOG = 128

# Linux: struct ucred is pid, uid, gid. macOS: struct xucred begins with version, uid.
UCRED = struct.Struct("3i")
XUCRED_BYTES, XUCRED_UID = 76, struct.Struct("=II")
SOL_LOCAL, LOCAL_PEERCRED = 0, 1


def is_available() -> bool:
    """Can processes of this system meet on a Unix socket and know each other's user?"""
    return hasattr(socket, "AF_UNIX") and sys.platform in ("linux", "darwin")


def socket_path(store: Path, name: str) -> Path:
    """A path for the socket `name`, in a private folder beside `store`, or in a shorter place.

    Raises OSError where no folder can be made or the one there is not private.
    """
    error: OSError = FileNotFoundError("no folder for a socket")
    for folder in folders(store):
        if len(os.fsencode(folder / name)) > MAX_PATH_BYTES:
            continue
        try:
            make_private(folder)
        except OSError as trouble:
            error = trouble
        else:
            return folder / name
    raise error


def folders(store: Path) -> Iterator[Path]:
    yield Path(f"{store}.flights")
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        yield Path(runtime) / "thinkonce"
    user = f"thinkonce-{os.geteuid()}"
    yield Path(tempfile.gettempdir()) / user
    yield Path("/tmp") / user  # a temporary folder of its own may be too deep


def make_private(folder: Path) -> None:
    """Make `folder`, readable by its owner alone; OSError if it is there and is not that."""
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise PermissionError(f"{folder} is not a folder of this user")
    if stat.S_IMODE(status.st_mode) & 0o077:
        folder.chmod(0o700)


def listen(path: Path) -> socket.socket:
    """A non-blocking listening socket at `path`. Raises OSError."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        server.bind(os.fspath(path))
        server.listen(BACKLOG)
        server.setblocking(False)
    except BaseException:
        server.close()
        raise
    return server


def connect(address: bytes) -> socket.socket:
    """A non-blocking socket to `address`. Raises OSError; ConnectionRefusedError: nobody is there.

    A Unix socket connects at once or not at all; BlockingIOError means a full backlog.
    """
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        client.setblocking(False)
        client.connect(address)
    except BaseException:
        client.close()
        raise
    return client


def is_same_user(peer: socket.socket) -> bool:
    """Does the process at the other end run as this one's user? Told by the kernel."""
    try:
        if sys.platform == "linux":
            raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
            uid = int(UCRED.unpack(raw)[1])
        else:
            raw = peer.getsockopt(SOL_LOCAL, LOCAL_PEERCRED, XUCRED_BYTES)
            uid = int(XUCRED_UID.unpack_from(raw)[1])
    except (OSError, struct.error):
        return False
    return uid == os.geteuid()


def socket_name(number: int) -> str:
    """A name that tells whose socket this is, so that a dead process's can be swept away."""
    me = this_process()
    return f"{me.space:x}.{me.pid:x}.{me.started:x}.{number:x}"


def sweep(folder: Path) -> None:
    """Remove what dead processes of this process's id space left in `folder`."""
    me = this_process()
    for path in folder.iterdir():
        try:
            space, pid, started, _number = (int(part, 16) for part in path.name.split("."))
        except ValueError:
            continue  # not ours
        if space == me.space and not is_alive(Process(pid, me.boot, space, started)):
            path.unlink(missing_ok=True)
