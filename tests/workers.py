"""Processes that tests command: forked from one that has imported everything, told by pipes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from leaks import until
from thinkonce.host.process import is_pid_taken


class Worker:
    """One of them. `order` is what it is begun with; `send` and `receive` carry JSON lines."""

    pid = 0

    def __init__(self, nursery, folder, order):
        own = Path(tempfile.mkdtemp(dir=folder))
        for pipe in ("commands", "answers"):
            os.mkfifo(own / pipe)
            order[pipe] = str(own / pipe)
        nursery.stdin.write(json.dumps(order) + "\n")
        nursery.stdin.flush()
        # In this order, as the worker does: each waits for the other end.
        self.commands = open(order["commands"], "w")  # noqa: SIM115  # `end` closes both
        self.answers = open(order["answers"])  # noqa: SIM115  # the same

    def send(self, command):
        self.commands.write(json.dumps(command) + "\n")
        self.commands.flush()

    def receive(self):
        line = self.answers.readline()
        assert line, f"worker {self.pid} is gone"
        return json.loads(line)

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        until(lambda: not is_pid_taken(self.pid), "the end of a killed process")

    def end(self, last_words=lambda: None):
        """Let it end by itself; `last_words` waits for what it says before that."""
        if is_pid_taken(self.pid):
            os.kill(self.pid, signal.SIGCONT)
            self.commands.close()
            last_words()
            until(lambda: not is_pid_taken(self.pid), "the end of a worker")
        self.commands.close()
        self.answers.close()


@contextlib.contextmanager
def nursery_of(script):
    """A process that has imported everything and forks workers that run `script`."""
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    yield process
    process.stdin.close()
    assert process.wait(20) == 0
