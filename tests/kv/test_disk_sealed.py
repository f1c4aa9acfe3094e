"""Sealed folders: nothing of a text in them, nothing served that was changed, no key no start."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.block_tiers import LONG, A, keep, loaded, path, state_of
from thinkonce.errors import ConfigError
from thinkonce.kv.disk.folder import kept_key, made_folder
from thinkonce.kv.disk.sealing import FolderKeys, folder_keys
from thinkonce.kv.disk.tier import DiskTier
from thinkonce.kv.prefix.owner import Owner
from thinkonce.kv.prefix.purges import PurgeRule, Purges
from thinkonce.kv.prefix.terms import Terms
from thinkonce.tiers.keyring import NO_KEYS, Keyring

OLD, NEW, OTHER = (Keyring(encryption=(bytes([n]) * 32,)) for n in (1, 2, 3))
BOTH = Keyring(encryption=(*NEW.encryption, *OLD.encryption))
MODEL = b"m" * 32


def keys_in(folder: Path, keys: Keyring) -> FolderKeys:
    return folder_keys(made_folder(folder, "kv"), keys)


def opened(folder: Path, keys: Keyring = OLD) -> DiskTier:
    found = keys_in(folder, keys)
    return DiskTier(folder, MODEL, 2**24, secret=found.owners, form=found.form)


def stored(folder: Path, length: int = 3) -> None:
    tier = opened(folder)
    keep(tier, path(length, 0, A), A)
    tier.close()


def files(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_sealed_folder_holds_no_token_no_state_and_no_name(tmp_path: Path) -> None:
    stored(tmp_path)
    purges = Purges(tmp_path / "purges.json", keys_in(tmp_path, OLD).sealing)
    purges.add(PurgeRule(tags=("a secret tag",)))
    raw = b"".join(files(tmp_path).values())
    for block in path(3, 0, A):
        for piece in (block.id, block.tokens[:16], state_of(block)[:16], b"secret tag", b"key a"):
            assert piece not in raw
    again = Purges(tmp_path / "purges.json", keys_in(tmp_path, OLD).sealing)
    assert again.era_of(Owner(tags=("a secret tag",))).era
    tier = opened(tmp_path)
    assert loaded(tier, path(3, 0, A)) == 3
    assert [b.tokens for b in tier.following(path(1, 0, A)[0].id, 4)] == [path(2, 0, A)[1].tokens]
    tier.close()


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        (OTHER, "the key .*is sealed with it"),
        (NO_KEYS, "missing; use the key .*is sealed with it"),
    ],
)
def test_another_key_or_none_is_refused_and_nothing_is_changed(
    tmp_path: Path, keys: Keyring, says: str
) -> None:
    stored(tmp_path)
    before = files(tmp_path)
    with pytest.raises(ConfigError, match=says) as refused:
        opened(tmp_path, keys)
    assert "encryption_key" in str(refused.value)
    assert files(tmp_path) == before
    tier = opened(tmp_path)
    assert loaded(tier, path(3, 0, A)) == 3
    tier.close()


def test_a_plain_folder_is_not_sealed_by_halves(tmp_path: Path) -> None:
    kept_key(made_folder(tmp_path, "kv"), "kv")
    before = files(tmp_path)
    with pytest.raises(ConfigError, match="written without a key"):
        opened(tmp_path, OLD)
    assert files(tmp_path) == before


def test_a_new_key_before_the_old_one_seals_everything_anew(tmp_path: Path) -> None:
    stored(tmp_path, 5)
    owners = keys_in(tmp_path, OLD).owners
    tier = opened(tmp_path, BOTH)
    assert loaded(tier, path(5, 0, A)) == 5
    keep(tier, path(2, 1), terms=Terms(life=300.0))
    assert tier.flush(LONG)
    assert loaded(tier, path(5, 0, A)) == 5
    assert not tier._files.is_stale
    tier.close()
    tier = opened(tmp_path, NEW)
    assert (loaded(tier, path(5, 0, A)), loaded(tier, path(2, 1))) == (5, 2)
    assert tier.purge(PurgeRule(tags=("x",))).blocks == 5, "whose they are is known as before"
    tier.close()
    assert keys_in(tmp_path, NEW).owners == owners


def test_purges_are_sealed_anew_too(tmp_path: Path) -> None:
    stored(tmp_path)
    file, tagged = tmp_path / "purges.json", Owner(tags=("t",))
    Purges(file, keys_in(tmp_path, OLD).sealing).add(PurgeRule(tags=("t",)))
    era = Purges(file, keys_in(tmp_path, BOTH).sealing).era_of(tagged).era
    assert era == Purges(file, keys_in(tmp_path, NEW).sealing).era_of(tagged).era != ""
    with pytest.raises(ConfigError, match="a file of purges"):
        Purges(file)


def test_the_old_key_alone_opens_nothing_any_more(tmp_path: Path) -> None:
    stored(tmp_path)
    keys_in(tmp_path, BOTH)
    with pytest.raises(ConfigError):
        opened(tmp_path, OLD)


def test_an_old_key_that_is_still_needed_is_asked_for(tmp_path: Path) -> None:
    stored(tmp_path)
    keys_in(tmp_path, BOTH)  # the folder's own key is sealed anew, its records are not yet
    before = files(tmp_path)
    with pytest.raises(ConfigError, match="behind the new one: blocks are sealed with it"):
        opened(tmp_path, NEW)
    assert files(tmp_path) == before
    tier = opened(tmp_path, BOTH)
    assert loaded(tier, path(3, 0, A)) == 3
    tier.close()


@given(data=st.data())
@settings(max_examples=25)
def test_one_changed_byte_of_a_sealed_folder_is_never_served(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("changed")
    stored(folder)
    changed = data.draw(st.sampled_from([*folder.rglob("*.blocks"), *folder.rglob("*.rows")]))
    raw = bytearray(changed.read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    changed.write_bytes(raw)
    tier = opened(folder)
    for block in path(3, 0, A):
        assert tier.load(block) in (None, bytearray(state_of(block)))
    tier.close()


def test_a_record_put_in_another_s_place_is_not_served(tmp_path: Path) -> None:
    stored(tmp_path, 2)
    (segment,) = tmp_path.rglob("*.blocks")
    raw = segment.read_bytes()
    segment.write_bytes(raw[8192:] + bytes(8192 - len(raw) % 8192) + raw[:8192])
    tier = opened(tmp_path)
    assert [tier.load(block) for block in path(2, 0, A)] == [None, None]
    tier.close()


def test_a_folder_key_that_was_changed_is_named(tmp_path: Path) -> None:
    stored(tmp_path)
    file = tmp_path / "folder.key"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ConfigError, match=r"\[kv\] store"):
        opened(tmp_path)
