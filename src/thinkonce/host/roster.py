"""Which processes of this host share calls through one mapped file, and whether it is only one.

    | turn | alone | crowded | 24 members: number, owner, address of its socket, checksum |

Who finds nobody else is `alone` and writes its calls nowhere. A newcomer enters, moves `turn` and,
before it claims anything, asks who was alone to write down what it has under way. The answer is
waited for, but not for ever: who is dead or stopped has its word struck out, and learns from
`turn` at its next call that it has company.

    newcomer                         who was alone
    enter ──► HELLO, no digest ──►   claim every call under way, strike out "alone"
    claim ◄────── ABANDONED ◄─────

Every change is made under the file's lock. Nothing here is trusted further than its checksum.
"""

from __future__ import annotations

import socket
import struct
import time
import zlib

import msgspec

from thinkonce.host.frames import Unframer, hello
from thinkonce.host.mapfile import ROSTER_SIZE, HostFile
from thinkonce.host.process import Process, is_alive, this_process
from thinkonce.host.unix_socket import connect, is_same_user

__all__ = ("EVERYTHING", "Member", "Roster", "ask_to_share")

EVERYTHING = b""  # asked for instead of a digest: have all calls under way written down
WAIT_SECONDS = 1.0  # for that; longer means a stopped process

HEAD = struct.Struct("=QQQ")
# number, pid, boot, space, start time, length of the address, address; then the checksum
MEMBER = struct.Struct("=QIIIQH110s")
SLOT_BYTES = 152
SLOTS = (ROSTER_SIZE - HEAD.size) // SLOT_BYTES
CHECK = struct.Struct("=I")
NUMBER = struct.Struct("=Q")
TURN_AT, ALONE_AT, CROWDED_AT = 0, 8, 16


class Member(msgspec.Struct, frozen=True):
    """One that shares. `number` is never given twice; `at` is where it is written."""

    number: int
    owner: Process
    address: bytes
    at: int


class Roster:
    """Thread-safe, and safe between processes. Methods raise TierError without the lock.

    `host.turn` is the first of its numbers, which moves when somebody enters; anybody may read it.
    """

    def __init__(self, host: HostFile) -> None:
        self._host = host

    def enter(self, address: bytes) -> tuple[Member | None, Member | None]:
        """Who one is from now on, None where all places are taken; and who was alone, if one was.

        From now on nobody takes itself for alone while that who was has not been asked.
        """
        with self._host.brief_lock:
            members = self._members()
            taken = {member.at for member in members}
            free = [at for at in map(slot_at, range(SLOTS)) if at not in taken]
            me = self._written(free[0], address) if free else None
            if me is None:
                self._put(CROWDED_AT, 1)  # one that nobody sees: who is alone cannot be told
            self._put(TURN_AT, self._get(TURN_AT) + 1)
            alone = self._get(ALONE_AT)
            return me, next((member for member in members if member.number == alone), None)

    def leave(self, me: Member) -> None:
        with self._host.brief_lock:
            if self._read(me.at) == me:
                self._host.roster[me.at : me.at + SLOT_BYTES] = bytes(SLOT_BYTES)
            self._strike_out(me)

    def company(self, member: Member) -> None:
        """`member` is alone no longer: it has written down its calls, or cannot be asked."""
        with self._host.brief_lock:
            self._strike_out(member)

    def is_alone(self, me: Member) -> int:
        """The turn in which `me`, and nobody else, is here: true until it moves. 0 if it is not."""
        with self._host.brief_lock:
            if self._get(CROWDED_AT) or self._members() != [me]:
                return 0
            self._put(ALONE_AT, me.number)
            return self._get(TURN_AT)

    def is_member(self, me: Member) -> bool:
        """Whether `me` is still written here: another layout version may have wiped it out."""
        return self._read(me.at) == me

    # -- under the lock ------------------------------------------------------------------

    def _members(self) -> list[Member]:
        """Who is here and, as far as can be seen, alive."""
        found = (self._read(slot_at(slot)) for slot in range(SLOTS))
        return [member for member in found if member is not None and is_here(member)]

    def _written(self, at: int, address: bytes) -> Member:
        owner = this_process()
        me = Member(self._host.next_sequence(), owner, address, at)
        whose = (owner.pid, owner.boot, owner.space, owner.started)
        content = MEMBER.pack(me.number, *whose, len(address), address)
        written = content + CHECK.pack(zlib.crc32(content))
        self._host.roster[at : at + len(written)] = written
        return me

    def _read(self, at: int) -> Member | None:
        content = bytes(self._host.roster[at : at + MEMBER.size])
        if len(content) < MEMBER.size:
            return None  # the file has been closed
        (check,) = CHECK.unpack_from(self._host.roster, at + MEMBER.size)
        number, pid, boot, space, started, length, address = MEMBER.unpack(content)
        if not number or check != zlib.crc32(content):
            return None
        return Member(number, Process(pid, boot, space, started), address[:length], at)

    def _strike_out(self, member: Member) -> None:
        if self._get(ALONE_AT) == member.number:
            self._put(ALONE_AT, 0)

    def _get(self, at: int) -> int:
        return int(NUMBER.unpack_from(self._host.roster, at)[0])

    def _put(self, at: int, number: int) -> None:
        NUMBER.pack_into(self._host.roster, at, number)


def is_here(member: Member) -> bool:
    """False only if it has certainly ended. In another id space only its socket tells."""
    if member.owner.space == this_process().space:
        return is_alive(member.owner)
    try:
        connect(member.address).close()
    except (ConnectionRefusedError, FileNotFoundError):
        return False
    except OSError:
        return True
    return True


def slot_at(slot: int) -> int:
    return HEAD.size + slot * SLOT_BYTES


def ask_to_share(address: bytes, patience: float = WAIT_SECONDS) -> bool:
    """Have who listens at `address` write down its calls; False if it did not say so in time."""
    give_up_at = time.monotonic() + patience
    try:
        with connect(address) as asked:
            if not is_same_user(asked):
                return False
            asked.settimeout(patience)
            asked.sendall(hello(EVERYTHING))
            return has_answered(asked, give_up_at)
    except (OSError, ValueError):
        return False


def has_answered(asked: socket.socket, give_up_at: float) -> bool:
    """Wait for the one frame that says it is done. Raises OSError and ValueError."""
    heard = Unframer()
    while (left := give_up_at - time.monotonic()) > 0:
        asked.settimeout(left)
        data = asked.recv(4096)
        if not data:
            return False
        if any(True for _ in heard.feed(data)):
            return True
    return False
