"""The end of a gateway: whatever fails there, the rest is let go all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.conftest import settings_of
from thinkonce import settings as known
from thinkonce.errors import TierError
from thinkonce.gateway.assembly import Assembly, assemble
from thinkonce.upstream.pools import Pools


def assembled(store: str) -> Assembly:
    upstreams = {"main": known.Upstream(urls=["http://127.0.0.1:9"])}
    settings = settings_of(upstreams, store={"url": store})
    return assemble(settings, Pools.of(settings.upstreams))


class Unreachable:
    """An exporter whose receiver is gone."""

    def close(self) -> None:
        raise OSError("the receiver is gone")


async def test_a_tracer_that_cannot_send_leaves_no_store_open(tmp_path: Path) -> None:
    assembly = assembled(f"sqlite:///{tmp_path / 'answers.db'}")
    assembly.tracing = Unreachable()  # type: ignore[assignment]
    with pytest.raises(OSError, match="the receiver is gone"):
        await assembly.close(0.0)
    assert assembly.shelf.store is not None
    with pytest.raises(TierError, match="closed"):
        assembly.shelf.store.savings.read()


async def test_what_was_saved_waits_for_a_store_that_fails_in_any_way(tmp_path: Path) -> None:
    assembly = assembled("memory://")
    keeper = assembly.metrics.keeper
    row = [1, 0, 18, 0, 0, 0, 1, 0]
    keeper.savings.book.add("outcome", "hit", row)
    keeper._table = Failing()
    await keeper.settle()
    assert keeper.savings.book.total() == row
    assert (await keeper.sums({})).total() == row
    keeper._table = None
    await assembly.close(0.0)


class Failing:
    def add(self, rows: object, fold: object) -> None:
        raise ValueError("no such column")

    def read(self) -> list[tuple[str, str, list[int]]]:
        raise ValueError("no such column")
