"""A store with a key: nothing in its files tells what it holds; a wrong key loses nothing."""

import threading
from contextlib import contextmanager

import apsw
import pytest

from thinkonce import Cache, cached
from thinkonce.cli import main
from thinkonce.entry import Meta
from thinkonce.errors import ConfigError, CorruptEntry
from thinkonce.host.mapfile import HostFile, host_path
from thinkonce.request.secret import load_secret
from thinkonce.selector import Selector
from thinkonce.testing.clock import FakeClock
from thinkonce.testing.entries import answer_of, entry_of, key_of
from thinkonce.tiers.aliases import entries_by_key
from thinkonce.tiers.cipher import Cipher
from thinkonce.tiers.codec import Codec
from thinkonce.tiers.resealing import Resealing
from thinkonce.tiers.sqlite import SqliteTier

SETTING = "s" * 32
SECRET = load_secret(SETTING)
OLD, NEW = b"o" * 32, b"n" * 32
WORDS = {"MarkedAnswer", "MarkedTag", "MarkedSpace", "MarkedModel", "MarkedLabel", "MarkedScope"}
WORDS |= {"MarkedTenant", "what was asked"}
META = Meta(
    scope="MarkedScope",
    tenant="MarkedTenant",
    namespace="MarkedSpace",
    model="MarkedModel",
    tags=("MarkedTag", "other"),
    label="MarkedLabel",
)
CLOCK = FakeClock()


@contextmanager
def opened(path, *keys, **options):
    host = HostFile(host_path(path))
    try:
        cipher = Cipher(keys) if keys else None
        clock = CLOCK.clock
        tier = SqliteTier(path, secret=SECRET, host=host, clock=clock, cipher=cipher, **options)
        try:
            yield tier
        finally:
            tier.close()
    finally:
        host.close()


def fill(path, *keys, count=30):
    with opened(path, *keys) as tier:
        for number in range(count):
            entry = entry_of(CLOCK, f"MarkedAnswer {number} " * 20, meta=META)
            tier.put(key_of(str(number)), entry)
        assert tier.flush(10)
        tier.tidy()  # with a key, the new file is written anew: not while a test looks into it


def found_in(path):
    """The words that stand in some file of the store, besides its secret."""
    everything = b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))
    return {word for word in WORDS if word.encode() in everything}


def held(path):
    """Read behind the tier's back: one that has both keys begins to write rows anew."""
    return entries_by_key(apsw.Connection(str(path)).execute)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "answers.db"


def test_the_words_are_found_in_a_plain_store_so_that_the_search_means_something(path):
    fill(path)
    assert found_in(path) == WORDS


def test_nothing_that_tells_content_stands_in_the_files(path):
    with opened(path, NEW) as tier:
        entry = entry_of(CLOCK, "MarkedAnswer", meta=META)
        tier.put(key_of("a"), entry)
        assert tier.flush(10)
        tier.purges.append(Selector(tags=("MarkedTag",), namespace="MarkedSpace"))
        tier.put(key_of("b"), entry_of(CLOCK, "MarkedAnswer", meta=META, epoch=9))
        assert tier.flush(10)
        assert not found_in(path), "while the store is open, its log beside it"
    assert not found_in(path)


@pytest.mark.parametrize(
    "selector",
    [
        Selector(tags=("MarkedTag",)),
        Selector(namespace="MarkedSpace"),
        Selector(model="MarkedModel"),
        Selector(tenant="MarkedTenant", scope="MarkedScope"),
    ],
    ids=["tag", "namespace", "model", "tenant and scope"],
)
def test_listing_and_purging_find_their_rows(path, selector):
    fill(path, NEW, count=3)
    with opened(path, NEW) as tier:
        other = entry_of(CLOCK, "x", meta=Meta(tags=("t",)), epoch=0)
        tier.put(key_of("other"), other)
        assert tier.flush(10)
        assert {entry.meta for entry in tier.entries(selector, 10)} == {META}
        assert tier.purges.append(selector)[1] == 3
        assert tier.get(key_of("0")) is None
        assert tier.get(key_of("other")) is not None


def test_turning_encryption_on_leaves_no_plain_text_behind(path):
    fill(path)
    with opened(path) as tier:  # deleted before, it lies in free pages
        assert tier.purges.append(Selector(key=key_of("3").digest, tags=("MarkedTag",)))[1] == 1
    with opened(path, NEW) as tier:
        tier.tidy()
        assert tier.settled() == (Cipher((NEW,)).ids[0], {Cipher((NEW,)).ids[0]: 29})
        assert answer_of(tier.get(key_of("7"))).startswith("MarkedAnswer 7")
        assert not found_in(path), "while it is open"
    assert not found_in(path)


def test_sums_of_what_was_saved_are_brought_under_the_key_with_the_rest(path):
    fill(path, count=1)
    with opened(path) as tier:
        tier.savings.add([("namespace", "MarkedSpace", [1, 2])], lambda names, dimension: None)
    with opened(path, NEW) as tier:
        tier.tidy()
        assert not found_in(path)
        assert list(tier.savings.read()) == [("namespace", "MarkedSpace", [1, 2])]


def test_plain_rows_are_found_and_purged_before_they_are_encrypted(path):
    fill(path, count=250)
    with opened(path, NEW) as tier:
        assert tier.get(key_of("200")) is not None
        assert tier.purges.append(Selector(tags=("MarkedTag",)))[1] == 250


def test_uses_scores_and_times_survive_encryption(path):
    fill(path, count=5)
    query = "SELECT id, epoch, uses, created, expires, gone, density, score FROM entries"
    with opened(path) as tier:
        tier.get(key_of("1"))
        tier.tidy()
    before = apsw.Connection(str(path)).execute(query).fetchall()
    assert {row[2] for row in before} == {1, 2}
    with opened(path, NEW) as tier:
        tier.tidy()
    assert apsw.Connection(str(path)).execute(query).fetchall() == before


def test_a_new_key_in_front_takes_the_store_over(path):
    fill(path, OLD)
    with opened(path, NEW, OLD) as tier:
        assert answer_of(tier.get(key_of("7"))).startswith("MarkedAnswer 7")
        tier.tidy()
    with opened(path, NEW) as tier:  # without the old key
        assert answer_of(tier.get(key_of("7"))).startswith("MarkedAnswer 7")
        assert tier.purges.append(Selector(tags=("MarkedTag",)))[1] == 30


def test_purges_made_under_an_older_key_or_none_are_understood(path):
    fill(path, count=1)
    with opened(path) as tier:
        purge, _ = tier.purges.append(Selector(tags=("unlike",)))
    for keys in ((OLD,), (NEW, OLD), (NEW,)):
        with opened(path, *keys) as tier:
            tier.tidy()
            assert tier.purges.since(0) == [purge], keys


@pytest.mark.parametrize("keys", [(), (NEW,)], ids=["no key", "another key"])
def test_a_store_that_the_keys_do_not_open_is_refused_and_stays_whole(path, keys):
    fill(path, OLD)
    wanted = Cipher((OLD,)).ids[0]
    with (
        pytest.raises(ConfigError, match=rf"\[store\] encryption_key.*{wanted}"),
        opened(path, *keys),
    ):
        pass
    with opened(path, OLD) as tier:
        assert answer_of(tier.get(key_of("7"))).startswith("MarkedAnswer 7")


def test_rows_of_a_key_that_is_not_ours_are_misses_and_stay(path):
    fill(path, OLD)
    with opened(path, NEW, check_key=False) as tier:
        assert tier.get(key_of("7")) is None
        tier.put(key_of("new"), entry_of(CLOCK, "mine"))
        assert tier.flush(10)
        assert tier.stats().errors == 1
        tier.tidy()
    assert held(path) == {Cipher((OLD,)).ids[0]: 30, Cipher((NEW,)).ids[0]: 1}


def test_two_with_different_keys_on_one_store_lose_nothing_of_each_other(path):
    with opened(path, OLD) as first, opened(path, NEW, check_key=False) as second:
        first.put(key_of("a"), entry_of(CLOCK, "of the first"))
        second.put(key_of("b"), entry_of(CLOCK, "of the second"))
        assert first.flush(10)
        assert second.flush(10)
        assert second.get(key_of("a")) is None
        assert first.get(key_of("b")) is None
        assert answer_of(first.get(key_of("a"))) == "of the first"
        assert answer_of(second.get(key_of("b"))) == "of the second"


def test_every_changed_byte_of_a_row_is_noticed():
    codec, key = Codec(SECRET, "store", Cipher((NEW,))), key_of("a")
    sealed = codec.encode(key.digest, entry_of(CLOCK, "an answer"))
    assert answer_of(codec.decode(key, sealed)) == "an answer"
    for at in range(len(sealed)):
        changed = sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]
        with pytest.raises(CorruptEntry):
            codec.decode(key, changed)


@pytest.mark.parametrize("at", [0, 2, 10, 25, 60, -1])
def test_a_changed_row_is_a_miss_and_counted(path, at):
    fill(path, NEW, count=1)
    with opened(path, NEW) as tier:
        behind = apsw.Connection(str(path))
        (value,) = behind.execute("SELECT value FROM answers").fetchone()
        changed = bytearray(value)
        changed[at] ^= 1
        behind.execute("UPDATE answers SET value = ?", (bytes(changed),))
        behind.close()
        assert tier.get(key_of("0")) is None
        assert tier.stats().errors == 1


def test_rows_that_were_swapped_are_misses(path):
    fill(path, NEW, count=2)
    with opened(path, NEW) as tier:
        behind = apsw.Connection(str(path))
        (first, second) = behind.execute("SELECT value FROM answers ORDER BY id").fetchall()
        behind.execute("UPDATE answers SET value = ? WHERE id = 1", second)
        behind.execute("UPDATE answers SET value = ? WHERE id = 2", first)
        behind.close()
        assert tier.get(key_of("0")) is tier.get(key_of("1")) is None


def test_a_tenants_bytes_are_counted(path):
    fill(path, NEW, count=4)
    with opened(path, NEW) as tier:
        assert tier.bytes_of("MarkedTenant") > 4 * 250
        assert tier.bytes_of("nobody") == 0


# -- the commands ------------------------------------------------------------------------------


@pytest.fixture
def run(path, capsys, monkeypatch):
    monkeypatch.setenv("THINKONCE_STORE_SECRET", SETTING)

    def run(*arguments, key=None, code=0):
        if key is None:
            monkeypatch.delenv("THINKONCE_STORE_ENCRYPTION_KEY", raising=False)
        else:
            monkeypatch.setenv("THINKONCE_STORE_ENCRYPTION_KEY", key)
        assert main([*arguments, "--store", f"sqlite:///{path}"]) == code
        said = capsys.readouterr()
        return said.out + said.err

    return run


def test_a_store_is_encrypted_given_a_new_key_and_made_plain_by_command(path, run):
    fill(path)
    new, old = NEW.hex(), OLD.hex()
    old_id, new_id = Cipher((OLD,)).ids[0], Cipher((NEW,)).ids[0]
    assert f"30 entries in {path}, all encrypted with key {old_id}" in run("encrypt", key=old)
    assert f"all encrypted with key {new_id}" in run("encrypt", key=f"{new},{old}")
    assert not found_in(path)
    assert f"30 entries in {path}, all plain" in run("encrypt", "--off", key=new)
    assert found_in(path) == WORDS


def test_a_lost_key_is_said_and_its_entries_can_be_removed(path, run):
    fill(path, OLD)
    missing = Cipher((OLD,)).ids[0]
    assert f"30 entries encrypted with key {missing}" in run("doctor", code=1)
    assert missing in run("encrypt", key=NEW.hex(), code=2)
    assert "30 entries forgotten" in run("encrypt", "--forget", key=NEW.hex())
    assert "all of it, with key" in run("doctor", key=NEW.hex())


def test_a_listing_without_the_key_says_so_instead_of_showing_nothing(path, run):
    fill(path, NEW)
    assert Cipher((NEW,)).ids[0] in run("ls", code=2)
    assert "MarkedModel" in run("ls", "--json", key=NEW.hex())


def test_doctor_tells_plain_rows_from_encrypted_ones_and_what_helps(path, run):
    fill(path)
    assert "30 entries plain\n" in run("doctor", key=NEW.hex(), code=1)
    assert "thinkonce encrypt" in run("doctor", key=NEW.hex(), code=1)


def test_encrypting_without_a_key_says_where_to_put_one(path, run):
    fill(path)
    assert "THINKONCE_STORE_ENCRYPTION_KEY" in run("encrypt", code=2)


# -- in the process ----------------------------------------------------------------------------


def answer(prompt):
    return "MarkedAnswer"


def test_a_decorated_functions_answers_are_encrypted_and_found_again(path):
    url, key = f"sqlite:///{path}", NEW.hex()
    with Cache(url, encryption_key=key, secret=SETTING) as cache:
        ask = cached(cache=cache, tags="MarkedTag", namespace="MarkedSpace")(answer)
        assert ask("what was asked") == "MarkedAnswer"
        cache.set({"prompt": "what was asked"}, "MarkedAnswer", tags=["MarkedTag"])
        assert cache.flush(10)
        assert not found_in(path)
    with Cache(url, encryption_key=key, secret=SETTING) as cache:
        ask = cached(cache=cache, tags="MarkedTag", namespace="MarkedSpace")(answer)
        assert ask("what was asked") == "MarkedAnswer"
        assert cache.stats()["hits"] == 1
        assert cache.get({"prompt": "what was asked"}) == "MarkedAnswer"
    assert not found_in(path)
    with pytest.raises(ConfigError, match=Cipher((NEW,)).ids[0]):
        Cache(f"sqlite:///{path}", secret=SETTING)


def test_the_file_is_written_anew_while_nobody_waits_for_a_listing(path, monkeypatch):
    fill(path)
    finish, asked, done = Resealing.finish, [], threading.Event()

    def watched(self):
        asked.append(threading.current_thread())
        finish(self)
        if self._database.rows("SELECT 1 FROM meta WHERE name = 'settled'"):
            done.set()

    monkeypatch.setattr(Resealing, "finish", watched)
    with opened(path, NEW) as tier:
        for number in range(30):
            tier.put(key_of(f"more {number}"), entry_of(CLOCK, "more"))
            assert tier.flush(10)
        assert done.wait(10)
    assert threading.current_thread() not in asked
