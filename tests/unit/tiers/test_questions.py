"""Rows of questions in a SQLite file: they go with their entries, and tell nothing under a key."""

from contextlib import contextmanager

import apsw
import pytest

from thinkonce.entry import Meta
from thinkonce.host.mapfile import HostFile, host_path
from thinkonce.likeness import Hint
from thinkonce.testing import FakeClock
from thinkonce.testing.entries import answer_of, entry_of, hint_of, key_of
from thinkonce.tiers.cipher import Cipher
from thinkonce.tiers.questions import LONGEST
from thinkonce.tiers.sqlite import SqliteTier

OLD, NEW = b"o" * 32, b"n" * 32
PARTITION = hint_of("").partition
SAID = ("MarkedEmbedder", b"MarkedVector", b"MarkedPrint", b"MarkedMember")
MARKED = Hint(PARTITION, "MarkedQuestion", *SAID)
WORDS = {b"MarkedQuestion", b"MarkedEmbedder", *SAID[1:]}


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "answers.db"


@contextmanager
def opened(path, clock, *keys, **options):
    host = HostFile(host_path(path))
    cipher = Cipher(keys) if keys else None
    tier = SqliteTier(
        path, secret=b"s" * 32, host=host, clock=clock.clock, cipher=cipher, **options
    )
    try:
        yield tier
    finally:
        tier.close()
        host.close()


def behind(path):
    database = apsw.Connection(str(path))
    database.set_busy_timeout(5000)  # under a key, the file may be being written anew
    return database


def asked(tier):
    return tier.questions.newer(PARTITION, 0, 10_000)


def fill(tier, clock, count, **fields):
    for number in range(count):
        tier.put(key_of(str(number)), entry_of(clock, hint=MARKED, **fields))
    assert tier.flush(10)


def check_pairs(path):
    """Every row has its answer, every answer its row, in a store where each was given one."""
    database = behind(path)
    assert database.execute("PRAGMA integrity_check").get == "ok"
    query = (
        "SELECT count(*) FROM questions q FULL JOIN answers a USING (id) "
        "WHERE q.digest IS NOT a.digest"
    )
    assert database.execute(query).get == 0
    (count,) = database.execute("SELECT count(*) FROM questions").fetchone()
    database.close()
    return count


def test_what_expires_takes_its_question_with_it(path, clock):
    with opened(path, clock) as tier:
        fill(tier, clock, 300, ttl=10)
        tier.put(key_of("lasting"), entry_of(clock, hint=MARKED))
        clock.advance(11)
        tier.tidy()
        assert [row.digest for row in asked(tier)] == [key_of("lasting").digest]
        assert check_pairs(path) == 1


def test_what_is_evicted_takes_its_question_with_it(path, clock):
    with opened(path, clock, max_bytes=2 * 2**20) as tier:
        for number in range(1500):
            entry = entry_of(clock, f"{number} " * 600, hint=MARKED)
            tier.put(key_of(str(number)), entry)
            if number % 100 == 99:
                assert tier.flush(10)
        tier.tidy()
        assert tier.stats().evictions["evicted"] > 500
        assert check_pairs(path) == tier.stats().entries == len(asked(tier)) > 100


def test_a_row_is_not_left_to_the_next_answer_that_takes_its_place(path, clock):
    with opened(path, clock) as tier:
        fill(tier, clock, 1)
        assert tier.delete(key_of("0"))
        tier.put(key_of("plain"), entry_of(clock))
        assert tier.flush(10)
        assert asked(tier) == []


def test_a_store_of_an_earlier_release_gets_its_table(path, clock):
    with opened(path, clock) as tier:
        tier.put(key_of("old"), entry_of(clock, "kept"))
        assert tier.flush(10)
    behind(path).execute("DROP TABLE questions")
    with opened(path, clock) as tier:
        assert answer_of(tier.get(key_of("old"))) == "kept"
        fill(tier, clock, 1)
        assert len(asked(tier)) == 1


def test_a_put_and_a_get_without_a_hint_say_nothing_of_questions(path, clock):
    said = []
    with opened(path, clock) as tier:
        with tier._database.writing(1.0) as connection:
            connection.exec_trace = lambda cursor, statement, values: said.append(statement) or True
        for _ in range(2):
            tier.put(key_of("plain"), entry_of(clock))
            assert tier.flush(10)
            assert tier.get(key_of("plain")) is not None
        assert any("INSERT INTO entries" in statement for statement in said)
        assert not [statement for statement in said if "questions" in statement]


@pytest.mark.parametrize(
    "hint",
    [
        Hint(PARTITION, "x", "e" * (LONGEST + 1), b"v", b"f"),
        Hint(PARTITION, "x", "\ud800", b"v", b"f"),
        Hint(PARTITION, "x", "e", b"v", b"f" * (LONGEST + 1)),
    ],
    ids=["long name", "no text", "long fingerprint"],
)
def test_a_hint_nobody_can_write_costs_neither_the_entry_nor_its_place(path, clock, hint):
    with opened(path, clock) as tier:
        tier.put(key_of("a"), entry_of(clock, "kept", hint=hint))
        assert tier.flush(10)
        assert answer_of(tier.get(key_of("a"))) == "kept"
        assert len(asked(tier)) == 1


@pytest.mark.parametrize(
    "value", [b"", b"\x01", b"\x01\x05ab", b"\x01\x02\xff\xff\x00", b"\x07abc"]
)
def test_a_damaged_row_is_one_whose_vector_is_still_to_be_made(path, clock, value):
    with opened(path, clock) as tier:
        fill(tier, clock, 2)
        behind(path).execute(
            "UPDATE questions SET value = ? WHERE digest = ?", (value, key_of("0").digest)
        )
        damaged, sound = asked(tier)
        assert damaged[1:] == (key_of("0").digest, "", b"", b"", b"")
        assert sound.vector == b"MarkedVector"


# -- encryption ----------------------------------------------------------------------------------


def found_in(path):
    everything = b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))
    return {word for word in WORDS if word in everything}


def test_nothing_of_a_question_stands_in_the_files_of_a_store_with_a_key(path, clock):
    with opened(path, clock) as tier:
        fill(tier, clock, 3)
    assert found_in(path) == WORDS, "so that the search means something"
    with opened(path, clock, NEW) as tier:
        tier.tidy()
        assert not found_in(path), "while it is open"
        assert [row[2:] for row in asked(tier)] == [SAID] * 3
        tier.put(key_of("new"), entry_of(clock, hint=MARKED))
        assert tier.flush(10)
        assert tier.questions.renew("MarkedEmbedder", [(key_of("0").digest, b"MarkedVector")]) == 1
        assert tier.get(key_of("0")).hint.text == "MarkedQuestion"
        assert not found_in(path)
    assert not found_in(path)
    assert check_pairs(path) == 4


def test_a_new_key_takes_the_questions_over(path, clock):
    with opened(path, clock, OLD) as tier:
        fill(tier, clock, 3)
        before = asked(tier)
    with opened(path, clock, NEW, OLD) as tier:
        tier.tidy()
    with opened(path, clock, NEW) as tier:
        assert asked(tier) == before


def test_another_key_s_questions_are_rows_without_vectors_and_stay(path, clock):
    with opened(path, clock, OLD) as tier:
        fill(tier, clock, 2)
    with opened(path, clock, NEW, check_key=False) as tier:
        assert [row.vector for row in asked(tier)] == [b"", b""]
        tier.tidy()
    with opened(path, clock, OLD) as tier:
        assert [row.vector for row in asked(tier)] == [b"MarkedVector"] * 2


def test_a_sealed_row_moved_to_another_entry_is_not_read(path, clock):
    with opened(path, clock, NEW) as tier:
        fill(tier, clock, 2)
        database = behind(path)
        query = "SELECT value FROM questions WHERE digest = ?"
        other = database.execute(query, (key_of("1").digest,)).get
        digest = key_of("0").digest
        database.execute("UPDATE questions SET value = ? WHERE digest = ?", (other, digest))
        assert [row.vector for row in asked(tier)] == [b"", b"MarkedVector"]


def test_encryption_reseals_answers_that_have_no_question_beside_those_that_have(path, clock):
    with opened(path, clock) as tier:
        fill(tier, clock, 2)
        tier.put(key_of("plain"), entry_of(clock, "no question", meta=Meta(tags=("t",))))
        assert tier.flush(10)
    with opened(path, clock, NEW) as tier:
        tier.tidy()
        assert len(asked(tier)) == 2
        assert answer_of(tier.get(key_of("plain"))) == "no question"
