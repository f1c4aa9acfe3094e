"""Folders that earlier and later releases wrote: read on, or left alone, never misread."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from contract.block_tiers import LONG, A, keep, loaded, path
from thinkonce.kv.disk.rows import HEAD, ROW, Kind, read_rows
from thinkonce.kv.disk.tier import DiskTier
from thinkonce.kv.prefix.purges import PurgeRule

MODEL = b"m" * 32
FIRST = np.dtype(
    [
        *(("id", "V16"), ("parent", "V16"), ("segment", "<u4"), ("length", "<u4")),
        *(("offset", "<u8"), ("kind", "<u4"), ("check", "<u4")),
    ]
)


def opened(folder: Path) -> DiskTier:
    return DiskTier(folder, MODEL, 2**24)


def in_first_form(folder: Path) -> Path:
    """Rewrite a folder's rows as the first release wrote them."""
    (file,) = folder.rglob("*.rows")
    with file.open("rb") as opened_file:
        rows = read_rows(opened_file.fileno())
    rows = rows[rows["kind"] != Kind.WORD]
    old = np.zeros(len(rows), FIRST)
    for name in ("id", "parent", "segment", "length", "offset", "kind"):
        old[name] = rows[name]
    words = old.view("<u4").reshape(len(old), 14)
    weights = [0x9E3779B1 * (2 * at + 1) % 2**32 | 1 for at in range(13)]
    old["check"] = (words[:, :13] * np.array(weights, "<u4")).sum(1, dtype="<u4") ^ 0x746F6E63
    file.write_bytes(old.tobytes())
    return file


def test_a_folder_of_the_first_form_is_read_on(tmp_path: Path) -> None:
    tier = opened(tmp_path)
    keep(tier, path(5))
    tier.forget([path(5)[4].id])
    tier.close()
    file = in_first_form(tmp_path)
    for _ in range(2):
        tier = opened(tmp_path)
        assert loaded(tier, path(5)) == 4
        tier.close()
        assert file.read_bytes().startswith(HEAD), "written anew, in the form of today"
    tier = opened(tmp_path)
    keep(tier, path(2, 1, A), A)
    assert tier.purge(PurgeRule(tags=("nobody's",))).blocks == 4, "whose they are nobody knows"
    assert (tier.known(path(5)), loaded(tier, path(2, 1, A))) == (0, 2)
    tier.close()


def test_the_first_form_of_a_process_that_lives_is_not_followed(tmp_path: Path) -> None:
    one = opened(tmp_path)
    keep(one, path(3))
    in_first_form(tmp_path)
    other = opened(tmp_path)
    assert other.known(path(3)) == 0
    other.close()
    one.close()


def test_rows_of_a_later_release_are_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tier = opened(tmp_path)
    keep(tier, path(3))
    tier.close()
    (file,) = tmp_path.rglob("*.rows")
    later = b"TOROWS99" + file.read_bytes()[8:]
    file.write_bytes(later)
    segments = {each: each.read_bytes() for each in tmp_path.rglob("0001-*.blocks")}
    tier = DiskTier(tmp_path, MODEL, 30_000)
    assert "of a later release" in caplog.text
    assert tier.known(path(3)) == 0
    for number in range(4):
        keep(tier, path(3, number))
    tier.purge(PurgeRule())
    assert tier.flush(LONG)
    tier.close()
    assert file.read_bytes() == later
    assert {each: each.read_bytes() for each in segments} == segments


@pytest.mark.parametrize("length", [0, 5, 7, len(HEAD) - 1])
def test_a_beginning_that_was_torn_is_no_form(tmp_path: Path, length: int) -> None:
    tier = opened(tmp_path)
    keep(tier, path(1))
    tier.close()
    (file,) = tmp_path.rglob("*.rows")
    file.write_bytes(HEAD[:length])
    tier = opened(tmp_path)
    assert tier.known(path(1)) == 0
    keep(tier, path(2))
    tier.close()
    assert len(file.read_bytes()) == len(HEAD) + (3 + 2) * ROW.itemsize
    tier = opened(tmp_path)
    assert loaded(tier, path(2)) == 2
    tier.close()
