"""What systemd is told of a service of `Type=notify` (sd_notify(3)): ready, draining, how far.

The protocol is one datagram of lines to the socket that $NOTIFY_SOCKET names.
"""

from __future__ import annotations

import contextlib
import os
import socket

from thinkonce.web.server import Say

__all__ = ("notifying",)

_VARIABLE = "NOTIFY_SOCKET"
# How the lines that a server says begin -> what they mean to systemd.
_STATES = {
    "thinkonce ready on ": "READY=1",
    "thinkonce model ready on ": "READY=1",
    "draining: ": "STOPPING=1",
}
# Not how far the service is, but what a person may try.
_ADVICE = "try: "


def notifying(say: Say) -> Say:
    """`say`, which tells systemd too, if it started this process; children are not to."""
    address = os.environ.pop(_VARIABLE, "")
    if not address.startswith(("/", "@")) or not hasattr(socket, "AF_UNIX"):
        return say

    def tell(line: str) -> None:
        say(line)
        if not line.startswith(_ADVICE):
            _send(address, _message(line))

    return tell


def _message(line: str) -> str:
    states = [state for begin, state in _STATES.items() if line.startswith(begin)]
    return "\n".join([*states, f"STATUS={line}"])


def _send(address: str, message: str) -> None:
    """A service whose manager does not listen serves all the same."""
    path = "\0" + address[1:] if address.startswith("@") else address
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel,
    ):
        channel.setblocking(False)
        channel.sendto(message.encode(), path)
