"""What audits have taught, over a restart: whole, or not at all."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from small_model import CONTEXT

from thinkonce.clock import SYSTEM
from thinkonce.kv.disk.whole_file import WholeFile
from thinkonce.kv.engine import KvEngine, open_engine
from thinkonce.kv.generation.generator import Read
from thinkonce.kv.prefix.asking import Asking
from thinkonce.kv.prefix.owner import Owner
from thinkonce.kv.prefix.prompt import Method, Prompt, Span
from thinkonce.kv.reuse.audits import Pending
from thinkonce.kv.reuse.ladder import EXACT
from thinkonce.kv.reuse.meter import Audit
from thinkonce.kv.reuse.remembered import Remembered
from thinkonce.kv.weights.model import Model
from thinkonce.settings import Kv

FORM = "thinkonce fidelity 1 00ff"
KEY = bytes(range(32))
WRONG, RIGHT = Audit(1.0, 4), Audit(0.001, 16)
DIES = """
import os, signal, sys
from pathlib import Path
from thinkonce.kv.disk.whole_file import WholeFile

def die(descriptor):
    os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[2] == "write":
    os.fsync = die
else:
    Path.replace = lambda self, other: die(0)
form = "thinkonce fidelity 1 00ff"
WholeFile(Path(sys.argv[1]), form, bytes(range(32))).update(lambda was: b"new" * 100_000)
"""


def file_in(folder: Path, form: str = FORM, key: bytes = KEY) -> WholeFile:
    return WholeFile(folder / "fidelity", form, key)


def engine_in(folder: Path, model: Model, **said: int) -> KvEngine:
    return open_engine(model, Kv(chunk=64, store=str(folder), **said))


def asking(method: Method = "link", tenant: str = "one") -> Asking:
    span = Span(10, 210, method, "doc-1")
    return Asking(Prompt(range(3, 253), [span]), Owner(tenant))


def nothing(cancelled: Callable[[], bool]) -> Generator[Read, None, Audit | None]:
    yield from ()
    return None


def told(engine: KvEngine, audit: Audit, count: int, tenant: str = "one") -> None:
    """So many audits of what is served now."""
    ways = engine.ways
    assert ways is not None
    for _ in range(count):
        asked = asking(tenant=tenant)
        way = ways.way("link", asked)
        assert way is not None
        name = ways._namespace("link", asked)
        ways.told(Pending(asked, way.choice.name, "link", name, asked.owner, nothing), audit, 250)


def served(engine: KvEngine, tenant: str = "one") -> str:
    assert engine.ways is not None
    way = engine.ways.way("link", asking(tenant=tenant))
    return EXACT if way is None else way.choice.name


# -- the file ------------------------------------------------------------------------------------


def test_a_file_is_read_as_it_was_written_and_by_nobody_else(tmp_path: Path) -> None:
    assert file_in(tmp_path).read() is None
    file_in(tmp_path).update(lambda was: b"one\n two")
    assert file_in(tmp_path).read() == b"one\n two"
    file_in(tmp_path).update(lambda was: (was or b"") + b" three")
    assert file_in(tmp_path).read() == b"one\n two three"
    assert file_in(tmp_path, form="thinkonce fidelity 1 00fe").read() is None, "another model"
    assert file_in(tmp_path, form="thinkonce fidelity 2 00ff").read() is None, "another form"
    assert file_in(tmp_path, key=bytes(32)).read() is None, "another folder's"


@pytest.mark.parametrize("dies", ["write", "rename"])
def test_a_process_that_is_killed_while_it_writes_leaves_what_was_there(
    tmp_path: Path, dies: str
) -> None:
    file_in(tmp_path).update(lambda was: b"old")
    arguments = [sys.executable, "-c", DIES, str(tmp_path / "fidelity"), dies]
    assert subprocess.run(arguments, timeout=60).returncode == -signal.SIGKILL
    assert (tmp_path / "fidelity.new").exists()
    assert file_in(tmp_path).read() == b"old"
    file_in(tmp_path).update(lambda was: (was or b"") + b" and new")
    assert file_in(tmp_path).read() == b"old and new"
    assert not (tmp_path / "fidelity.new").exists()


@pytest.mark.parametrize("damage", ["bit", "short", "empty", "noise"])
def test_a_damaged_file_is_left_aside_and_written_anew(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "fidelity"
    file_in(tmp_path).update(lambda was: b"old " * 100)
    data = path.read_bytes()
    middle = len(data) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    made = {"bit": flipped, "short": data[:-1], "empty": b"", "noise": b"\xff" * 100}
    path.write_bytes(made[damage])
    assert file_in(tmp_path).read() is None
    assert "is left aside" in caplog.text
    file_in(tmp_path).update(lambda was: was or b"new")
    assert file_in(tmp_path).read() == b"new"


# -- what is in it -------------------------------------------------------------------------------


def test_a_step_up_the_ladder_holds_after_a_restart(tmp_path: Path, model: Model) -> None:
    first = engine_in(tmp_path, model)
    assert served(first) == "link 16"
    told(first, WRONG, 6)
    assert served(first) == "link 32"
    told(first, RIGHT, 3)
    first.close()
    again = engine_in(tmp_path, model)
    try:
        assert served(again) == "link 32"
        assert served(again, "two") == "link 16", "another tenant's traffic is its own"
        assert again.ways is not None
        fidelity = again.ways.fidelity("link", "link 32", asking())
        assert fidelity is not None
        assert (fidelity.audits, fidelity.agreement) == (3, 1.0)
        assert again.stats()["fidelity"]["settings"]["link 32"]["audits"] == 3, "of all traffic"
    finally:
        again.close()
    written = next(tmp_path.glob("*/fidelity")).read_bytes()
    assert b"one|" not in written, "it names nobody"
    lower = engine_in(tmp_path, model, link_tokens=0)
    try:
        assert served(lower) == "link 0", "a ladder that begins elsewhere begins there"
    finally:
        lower.close()


def test_an_alarm_is_written_at_once_and_survives_a_kill(tmp_path: Path, model: Model) -> None:
    killed = engine_in(tmp_path, model)
    told(killed, WRONG, 6)
    again = engine_in(tmp_path, model)  # nobody closed the first
    try:
        assert served(again) == "link 32"
    finally:
        again.close()
        killed.close()


def test_two_processes_keep_what_either_audited(tmp_path: Path, model: Model) -> None:
    one, two = engine_in(tmp_path, model), engine_in(tmp_path, model)
    told(one, WRONG, 6, "one")
    told(two, WRONG, 6, "two")
    one.close()
    two.close()
    again = engine_in(tmp_path, model)
    try:
        assert served(again, "one") == served(again, "two") == "link 32"
    finally:
        again.close()


def test_what_cannot_be_read_or_written_costs_nothing_else(
    tmp_path: Path, model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    first = engine_in(tmp_path, model)
    told(first, WRONG, 6)
    first.close()
    next(tmp_path.glob("*/fidelity")).write_bytes(b"torn")
    again = engine_in(tmp_path, model)
    assert again.ways is not None
    assert served(again) == "link 16"
    gone = WholeFile(tmp_path / "none" / "fidelity", FORM, KEY)
    Remembered(gone, again.ways, SYSTEM).audited(is_alarm=True)
    assert "not written down" in caplog.text
    again.close()


def test_auto_goes_on_with_what_it_measured(tmp_path: Path, model: Model) -> None:
    first = engine_in(tmp_path, model)
    asked = asking("auto")
    assert first.ways is not None
    effort = first.ways._efforts["auto"]
    name = first.ways._namespace("auto", asked)
    way = first.ways._way("link 16")
    for _ in range(20):
        first.ways.told(
            Pending(asked, way.choice.name, "auto", name, asked.owner, nothing), RIGHT, 250
        )
    effort.answered(name, "link 16")
    found = first.ways.way("auto", asked)
    first.close()
    again = engine_in(tmp_path, model)
    assert again.ways is not None
    kept = again.ways.way("auto", asked)
    again.close()
    assert len(asked.prompt) < CONTEXT
    assert found is not None
    assert kept is not None
    assert kept.choice.name == found.choice.name == "link 16"
