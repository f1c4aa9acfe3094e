"""Sealed bytes open under their own key, purpose and name; anything else is no entry."""

import base64
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkonce.errors import ConfigError, CorruptEntry, UnknownKey
from thinkonce.settings import Store
from thinkonce.tiers.cipher import OVERHEAD, Cipher
from thinkonce.tiers.keyring import keys_of, make_key_file, parse_keys

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
CIPHER = Cipher((NEW, OLD))


@given(st.binary(max_size=300), st.binary(max_size=40), st.sampled_from(["entry", "purge", "x"]))
def test_what_is_sealed_opens_and_grows_by_a_fixed_size(data, name, purpose):
    sealed = CIPHER.seal(purpose, name, data)
    assert CIPHER.open(purpose, name, sealed) == data
    assert len(sealed) == len(data) + OVERHEAD


@given(st.binary(min_size=1, max_size=60), st.data())
def test_any_changed_bit_is_noticed(data, choose):
    sealed = bytearray(CIPHER.seal("entry", b"name", data))
    bit = choose.draw(st.integers(0, 8 * len(sealed) - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CorruptEntry):
        CIPHER.open("entry", b"name", bytes(sealed))


@given(st.binary(max_size=60), st.integers(0, 200))
def test_bytes_that_are_cut_off_are_noticed(data, length):
    sealed = CIPHER.seal("entry", b"name", data)
    with pytest.raises(CorruptEntry):
        CIPHER.open("entry", b"name", sealed[: min(length, len(sealed) - 1)])


def test_sealed_bytes_do_not_open_under_another_name_or_for_another_purpose():
    sealed = CIPHER.seal("entry", b"a", b"text")
    for purpose, name in (("entry", b"b"), ("purge", b"a")):
        with pytest.raises(CorruptEntry):
            CIPHER.open(purpose, name, sealed)


def test_the_first_key_seals_and_all_open():
    sealed = Cipher((OLD,)).seal("entry", b"n", b"text")
    assert CIPHER.open("entry", b"n", sealed) == b"text"
    with pytest.raises(UnknownKey, match=CIPHER.ids[0]):
        Cipher((OLD,)).open("entry", b"n", CIPHER.seal("entry", b"n", b"text"))


def test_no_two_seals_are_alike_and_none_shows_the_text():
    sealed = {CIPHER.seal("entry", b"n", b"the same text") for _ in range(200)}
    assert len(sealed) == 200
    assert not any(b"text" in each for each in sealed)


def test_a_forked_child_repeats_no_nonce():
    CIPHER.seal("fork", b"n", b"text")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, b"".join(CIPHER.seal("fork", b"n", b"t")[:32] for _ in range(20)))
        os._exit(0)
    ours = {CIPHER.seal("fork", b"n", b"t")[:32] for _ in range(20)}
    os.waitpid(child, 0)
    heard = os.read(reading, 4096)
    os.close(reading), os.close(writing)
    theirs = {heard[at : at + 32] for at in range(0, len(heard), 32)}
    assert len(theirs) == 20
    assert not ours & theirs


def test_a_salt_is_drawn_anew_after_so_many_seals(monkeypatch):
    cipher = Cipher((OLD,))
    cipher.seal("entry", b"", b"")
    cipher._sealers["entry"].left = 1
    salts = [cipher.seal("entry", b"", b"")[4:20] for _ in range(3)]
    assert salts[0] != salts[1] == salts[2]


def test_marks_are_equal_for_equal_names_of_one_kind_under_one_key():
    first, second = CIPHER.marks("tag", "faq")
    assert (first, second) == Cipher((NEW, OLD)).marks("tag", "faq")
    assert Cipher((OLD,)).marks("tag", "faq") == (second,)
    others = [*CIPHER.marks("tag", "fax"), *CIPHER.marks("model", "faq")]
    assert len({first, second, *others}) == 6
    assert "faq" not in first


@pytest.mark.parametrize(
    "text",
    [
        OLD.hex(),
        f"  {OLD.hex().upper()}\n",
        base64.b64encode(OLD).decode(),
        base64.urlsafe_b64encode(OLD).decode().rstrip("="),
    ],
)
def test_a_key_is_hex_or_base64(text):
    assert parse_keys(text) == (OLD,)


@pytest.mark.parametrize("separator", [",", "\n", " , "])
def test_several_keys_keep_their_order(separator):
    assert parse_keys(separator.join((NEW.hex(), OLD.hex()))) == (NEW, OLD)


@pytest.mark.parametrize("text", ["", "short", "z" * 64, "ab" * 31, OLD.hex() + "," + OLD.hex()])
def test_what_is_no_key_is_refused_without_showing_it(text):
    with pytest.raises(ConfigError, match="encryption_key") as wrong:
        parse_keys(text)
    assert not text or text not in str(wrong.value)


def test_a_key_file_is_made_once_for_its_owner_alone(tmp_path):
    path = tmp_path / "key"
    make_key_file(path)
    assert path.stat().st_mode & 0o777 == 0o600
    (key,) = keys_of(Store(encryption_key_file=str(path))).encryption
    assert len(key) == 32
    with pytest.raises(ConfigError, match="not there yet"):
        make_key_file(path)


def test_a_key_file_that_others_may_read_is_refused(tmp_path):
    path = tmp_path / "key"
    make_key_file(path)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        keys_of(Store(encryption_key_file=str(path)))


def test_a_key_and_a_file_of_keys_at_once_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="not both"):
        keys_of(Store(encryption_key=OLD.hex(), encryption_key_file="somewhere"))
