"""A process that takes part in calls as it is told: one JSON command a line, answers likewise.

Commands that wait run in a thread of their own, so that a test can go on telling.
"""

from __future__ import annotations

import collections
import json
import os
import random
import signal
import sys
import threading
import time

from thinkonce.clock import Clock
from thinkonce.errors import UpstreamError
from thinkonce.flights.singleflight import Codec, Flights
from thinkonce.host.mapfile import HostFile

CODEC = Codec(lambda value: json.dumps(value).encode(), json.loads)


class Worker:
    def __init__(self, path, lease):
        self.ahead = 0.0  # seconds by which this process's clock has been moved
        clock = Clock(wall=time.time, monotonic=lambda: time.monotonic() + self.ahead)
        self.flights = Flights(HostFile(path), codec=CODEC, lease=lease, clock=clock)
        self.seats = {}
        self.out = threading.Lock()
        self.may_go_on = threading.Event()

    def say(self, number, **answer):
        with self.out:
            print(json.dumps({"id": number, **answer}), flush=True)

    def join(self, seat="s", key="k"):
        digest = key.encode().ljust(32, b".")
        taken = self.seats[seat] = self.flights.join(key, lambda: digest)
        # The commands of a test belong to different requests.
        from thinkonce.flights import leading

        leading._innermost.set(None)
        return {"role": taken.role}

    def join_all(self, keys):
        """Roles in the calls for `keys`, joined as fast as can be."""
        return {"roles": {key: self.join(key, key)["role"] for key in keys}}

    def publish(self, chunk, seat="s", times=1):
        for _ in range(times):
            self.seats[seat].publish(chunk.encode())
        return {}

    def land(self, value, seat="s"):
        self.seats[seat].land(value)
        return {}

    def fail(self, message, seat="s"):
        self.seats[seat].fail(UpstreamError(message))
        return {}

    def abandon(self, seat="s"):
        self.seats[seat].abandon()
        return {}

    def renew(self, seat="s"):
        self.seats[seat].renew()
        return {}

    def followers(self, seat="s"):
        return {"followers": self.seats[seat].followers}

    def advance(self, seconds):
        """Move the clock, and let those who wait look at it."""
        self.ahead += seconds
        for flight in list(self.flights._table.values()):
            flight.poke()
        return {}

    def silence(self, seat="s"):
        """Seconds since the leader last showed life."""
        return {"seconds": min(self.flights.now() - self.seats[seat].flight.spoke_at, 1e9)}

    def table(self):
        return {"flights": len(self.flights)}

    def close(self):
        self.flights.close()
        return {"threads": threading.active_count()}

    def follow(self, number, seat="s", timeout=None):
        landing = self.seats[seat].follow(timeout)
        error = (
            None if landing.error is None else [type(landing.error).__name__, str(landing.error)]
        )
        self.say(number, fate=landing.fate, value=landing.value, error=error, why=landing.why)

    def chunks(self, number, seat="s"):
        got, error = [], None
        try:
            for chunk in self.seats[seat].chunks():
                got.append(chunk.decode())
                self.say(f"{number}.{len(got)}", chunk=got[-1])
        except UpstreamError as trouble:
            error = str(trouble)
        landing = self.seats[seat].landing
        fate, value = (None, None) if landing is None else (landing.fate, landing.value)
        self.say(number, chunks=got, fate=fate, value=value, error=error)

    def nest(self, number, outer, inner):
        """Lead `outer`, whose model, once told to go on, asks for `inner`."""
        lead = self.flights.join(outer, lambda: outer.encode().ljust(32, b"."))
        self.say(f"{number}.1", role=lead.role)
        self.may_go_on.wait()
        landing = self.flights.join(inner, lambda: inner.encode().ljust(32, b".")).follow()
        lead.land(outer)
        self.say(number, fate=landing.fate, value=landing.value, why=landing.why)

    def storm(self, number, asks, keys, seed):
        """Ask `asks` times for one of `keys` keys, playing whatever role there is to play."""
        chance, ends = random.Random(seed), collections.Counter()
        for turn in range(asks):
            key = f"key {chance.randrange(keys)}"
            seat = self.flights.join(key, lambda key=key: key.encode().ljust(32, b"."))
            if seat.role == "follow" and chance.random() < 0.5:
                ends[seat.follow().fate] += 1
            elif seat.role == "follow":
                try:
                    got = list(seat.chunks())
                    ends[seat.landing.fate] += 1
                    if seat.landing.fate == "coalesced":
                        assert b"".join(got).decode() == seat.landing.value
                except UpstreamError:
                    ends["error"] += 1
            if seat.role == "lead":
                self.play_leader(seat, chance, f"{seed}.{turn}")
                ends["led"] += 1
        self.say(number, ends=ends, left=len(self.flights))

    def play_leader(self, seat, chance, name):
        parts = [f"{name}.{part} " for part in range(chance.randrange(6))]
        for part in parts:
            seat.publish(part.encode())
            os.sched_yield()
        end = chance.random()
        if end < 0.8:
            seat.land("".join(parts))
        elif end < 0.9:
            seat.fail(UpstreamError(name))
        else:
            seat.abandon()

    def go_on(self):
        self.may_go_on.set()
        return {}


WAITING = ("follow", "chunks", "nest", "storm")


def work(order):
    worker = Worker(order["path"], order["lease"])
    with open(order["commands"]) as commands, open(order["answers"], "w") as answers:
        sys.stdout = answers
        worker.say("pid", pid=os.getpid())
        for line in commands:
            command = json.loads(line)
            number, name = command.pop("id"), command.pop("do")
            if name in WAITING:
                task = threading.Thread(
                    target=getattr(worker, name), args=(number,), kwargs=command, daemon=True
                )
                task.start()
            else:
                worker.say(number, **getattr(worker, name)(**command))
        worker.flights.close()
        worker.say("end")


def main():
    """Fork a worker for every order: imports take longer than most tests."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead need nobody to collect them
    for line in sys.stdin:
        if os.fork() == 0:
            order = json.loads(line)
            os.environ["XDG_RUNTIME_DIR"] = order["runtime"]
            work(order)
            os._exit(0)


if __name__ == "__main__":
    main()
