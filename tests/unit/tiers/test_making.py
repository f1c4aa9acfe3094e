"""A store that several processes open before it exists: all have it, and none refuses it."""

import multiprocessing
from pathlib import Path

import apsw
import pytest

from thinkonce.errors import ConfigError
from thinkonce.tiers import schema
from thinkonce.tiers.schema import check_file, open_file


@pytest.fixture
def made(tmp_path):
    """The bytes of a store as it stands when it was made."""
    open_file(tmp_path / "made.db", 0).close()
    return (tmp_path / "made.db").read_bytes()


def pauses(monkeypatch, *, then):
    """What `schema` sleeps, and what happens meanwhile."""
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        then(len(slept))

    monkeypatch.setattr(schema.time, "sleep", sleep)
    return slept


@pytest.mark.parametrize("half", ["zeros", "a page in part", "the first of its pages"])
def test_a_store_half_made_by_another_process_is_waited_for(monkeypatch, tmp_path, made, half):
    path = tmp_path / "answers.db"
    unmarked = made[: schema.APPLICATION_ID_AT] + bytes(4) + made[schema.APPLICATION_ID_AT + 4 :]
    written = {
        "zeros": bytes(4096),
        "a page in part": unmarked[:4096],
        "the first of its pages": unmarked[:16384],
    }
    path.write_bytes(written[half])
    slept = pauses(monkeypatch, then=lambda times: times == 3 and path.write_bytes(made))
    check_file(path)
    assert len(slept) == 3


STUCK = {"zeros": bytes(16384), "a torn page": schema.MAGIC + b"\x10\x00" * 4096}


@pytest.mark.parametrize("content", STUCK.values(), ids=STUCK)
def test_what_stays_half_made_is_refused_in_the_end(monkeypatch, tmp_path, content):
    path = tmp_path / "answers.db"
    path.write_bytes(content)
    now = [0.0]
    monkeypatch.setattr(schema.time, "monotonic", lambda: now[0])
    slept = pauses(monkeypatch, then=lambda times: now.__setitem__(0, times * 0.02))
    with pytest.raises(ConfigError, match="not a database of thinkonce"):
        check_file(path)
    assert sum(slept) == pytest.approx(schema.MAKING_PATIENCE_S)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_database_is_refused_at_once(monkeypatch, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("dear to me\n" * 100)
    slept = pauses(monkeypatch, then=lambda times: None)
    with pytest.raises(ConfigError, match="not a database of thinkonce"):
        check_file(path)
    assert not slept


def test_a_mark_that_comes_while_it_is_looked_at_counts(monkeypatch, tmp_path, made):
    path = tmp_path / "answers.db"
    apsw.Connection(str(path)).execute("CREATE TABLE half(x)")

    def looked(path):
        path.write_bytes(made)  # the maker ends between the first look and the second
        raise ConfigError("store", str(path), "a file of its own")

    monkeypatch.setattr(schema, "check_unmarked", looked)
    pauses(monkeypatch, then=lambda times: None)
    check_file(path)


@pytest.mark.slow
def test_many_processes_make_the_same_stores_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    together, refused = context.Barrier(4), context.Queue()
    arguments = (tmp_path, together, refused)
    makers = [context.Process(target=open_all, args=arguments) for _ in range(4)]
    for maker in makers:
        maker.start()
    said = [refused.get(timeout=120) for _ in makers]
    for maker in makers:
        maker.join(60)
    assert said == [[]] * 4


def open_all(folder: Path, together, refused) -> None:
    said = []
    for number in range(150):
        together.wait(60)
        try:
            check_file(folder / f"{number}.db")
            open_file(folder / f"{number}.db", 0).close()
        except ConfigError as error:
            said.append(str(error))
    refused.put(said)
