"""One member of a group asks without end: what others asked is found all the same."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b

import numpy as np
import pytest
from numpy.typing import NDArray

from thinkonce.likeness import Hint
from thinkonce.meaning.index.holdings import Holdings
from thinkonce.meaning.index.packed import packed_bytes
from thinkonce.meaning.index.space import Space
from thinkonce.meaning.index.spaces import Spaces
from thinkonce.meaning.index.wordings import MOST_ALIKE, Wordings
from thinkonce.meaning.stored import MOST_OF_CROWD, MOST_OF_MEMBER, WIDELY, Stored
from thinkonce.meaning.text.lexical import fingerprint
from thinkonce.testing.clock import FakeClock
from thinkonce.testing.entries import entry_of, hint_of, key_of
from thinkonce.tiers.memory import MemoryTier
from unit.meaning.question_desk import WIDTH, Desk, Fixed

PARTITION = hint_of("").partition
HONEST, EVE = b"an honest member", b"eve"


def digest_of(name: str) -> bytes:
    return blake2b(name.encode(), digest_size=32).digest()


def near(vector: NDArray[np.float32], seed: int, away: float) -> NDArray[np.float32]:
    """Another of length 1: the larger `away`, the farther from `vector`."""
    noise = np.random.default_rng(seed).standard_normal(WIDTH).astype(np.float32)
    found = vector + away * noise / np.linalg.norm(noise)
    return np.asarray(found / np.linalg.norm(found), np.float32)


def hint(vector: NDArray[np.float32], member: bytes, mark: bytes = b"") -> Hint:
    return Hint(PARTITION, "", "fixed", packed_bytes(vector), mark, member)


ASKED = near(np.ones(WIDTH, np.float32), 1, 0.0)


@pytest.fixture
def space() -> Space:
    return Space(PARTITION, "fixed", WIDTH)


def flooded(space: Space, rows: int) -> None:
    """Eve's questions lie nearer to what is asked than the honest one."""
    space.add(digest_of("honest"), hint(near(ASKED, 2, 0.5), HONEST))
    for number in range(rows):
        space.add(digest_of(f"eve {number}"), hint(near(ASKED, number + 3, 0.1), EVE))


def found(space: Space) -> list[bytes]:
    return [one.name for one in space.spread(space.nearest(ASKED, WIDELY), MOST_OF_MEMBER)]


def test_wordings_around_a_question_do_not_hide_what_another_member_asked(space: Space) -> None:
    flooded(space, 3 * MOST_OF_CROWD)
    assert digest_of("honest") not in [one.name for one in space.nearest(ASKED, 8)]
    assert found(space).index(digest_of("honest")) == MOST_OF_MEMBER


def test_a_member_that_crowds_a_question_may_add_no_more_to_it(space: Space) -> None:
    desk = Desk(None, FakeClock())
    stored = Stored(desk.spaces, lambda: (), desk.clock.clock)
    flooded(space, MOST_OF_CROWD - 1)
    assert not stored.crowds(space, ASKED, EVE)
    space.add(digest_of("one more"), hint(near(ASKED, 1, 0.1), EVE))
    assert stored.crowds(space, ASKED, EVE)
    assert not stored.crowds(space, ASKED, HONEST)
    assert not stored.crowds(space, -ASKED, EVE), "elsewhere she may"
    assert not stored.crowds(space, ASKED, b""), "nor is a lone tenant bounded"
    desk.close()


def test_room_is_made_where_most_of_it_is_taken(space: Space) -> None:
    flooded(space, 200)
    for number in range(9):
        vector = near(ASKED, 900 + number, 2.0)
        space.add(digest_of(f"honest {number}"), hint(vector, HONEST, b"%d" % number))
    space.shrink(0.9)
    assert len(space) == 21
    assert all(digest_of(f"honest {number}") in space for number in range(9))
    assert digest_of("honest") in space
    assert digest_of("eve 199") in space, "the oldest of hers went"
    assert space.alike(b"3") == [digest_of("honest 3")]


def test_holdings_go_level_by_level() -> None:
    holdings = Holdings()
    for member, rows in {b"a": 5, b"b": 3, b"c": 1}.items():
        for number in range(rows):
            holdings.add(member, b"%s%d" % (member, number), b"", newer=True)
    assert holdings.to_go(2) == [b"a0", b"a1"]
    assert sorted(holdings.to_go(4)) == [b"a0", b"a1", b"a2", b"b0"]
    assert len(holdings.to_go(99)) == 9
    holdings.add(b"a", b"oldest", b"", newer=False)
    assert holdings.to_go(1) == [b"oldest"]


def test_one_who_asks_again_and_again_pushes_nobody_out_of_the_same_words() -> None:
    wordings = Wordings()
    wordings.add(b"mark", b"honest", HONEST, newer=True)
    for number in range(50):
        wordings.add(b"mark", b"eve %d" % number, EVE, newer=True)
    assert wordings.alike(b"mark") == [b"eve 49", b"honest"]
    for number in range(2 * MOST_ALIKE):
        wordings.add(b"mark", b"%d" % number, b"member %d" % number, newer=True)
    assert len(wordings.alike(b"mark")) == MOST_ALIKE


@pytest.fixture
def spaces() -> Iterator[Spaces]:
    made = Spaces(MemoryTier(max_entries=10, clock=FakeClock().clock), None, Fixed())
    yield made
    made.close()


def test_looking_for_what_nobody_asked_takes_no_memory(spaces: Spaces) -> None:
    for number in range(1000):
        assert len(spaces.space(digest_of(str(number)))) == 0
    assert (len(spaces), spaces.nbytes) == (0, 0)
    spaces.add(key_of("a"), hint(ASKED, b""))
    assert len(spaces) == 1


def test_a_flood_in_the_store_leaves_what_was_asked_before_it_within_reach(
    desk_with_room: Desk,
) -> None:
    """Rows are read newest first, and hers are the newest: there is room for a tenth of them."""
    desk = desk_with_room
    for number in range(10):
        put(desk, f"what is honest question {number}", HONEST)
    for number in range(4000):
        put(desk, f"eve asks about {number}", EVE)
        if number % 500 == 0:
            desk.flush()
    desk.flush()
    desk.spaces.close()
    desk.spaces = desk.opened()
    desk.spaces.space(PARTITION)
    assert desk.spaces.settle(60)
    assert desk.spaces.nbytes <= desk.options["max_bytes"]
    assert [desk.alike(f"what is honest question {n}") for n in range(10)] == [
        [f"what is honest question {n}"] for n in range(10)
    ]


@pytest.fixture
def desk_with_room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    path = tmp_path_factory.mktemp("flood") / "answers.db"
    made = Desk(path, FakeClock(), max_bytes=600_000)
    yield made
    made.close()


def put(desk: Desk, text: str, member: bytes) -> None:
    key = key_of(text)
    vector = packed_bytes(near(ASKED, len(text), 1.0))
    asked = Hint(PARTITION, text, desk.embedder.name, vector, fingerprint(text), member)
    assert desk.store is not None
    desk.store.put(key, entry_of(desk.clock, text, hint=asked))
