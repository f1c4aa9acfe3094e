"""Keys, entries and threads for tests of tiers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from hashlib import blake2b
from math import inf
from typing import Any

from thinkonce.entry import Entry, Meta
from thinkonce.likeness import Hint
from thinkonce.selector import Selector
from thinkonce.testing.clock import FakeClock
from thinkonce.tiers.tier import Key
from thinkonce.values import Kept, keep

__all__ = ("answer_of", "brief", "entry_of", "hint_of", "key_of", "run_together")


def key_of(name: str) -> Key:
    """A key whose digest depends on `name` alone."""
    return Key(name, blake2b(name.encode(), digest_size=32).digest())


def entry_of(
    clock: FakeClock,
    value: Any = "an answer",
    *,
    ttl: float = inf,
    retention: float = 0.0,
    kept: Kept | None = None,
    meta: Meta | None = None,
    epoch: int = 0,
    hint: Hint | None = None,
) -> Entry:
    """An entry made now that lives `ttl` seconds and stays `retention` seconds longer."""
    kept = keep(value) if kept is None else kept
    now = clock.wall()
    return Entry(
        None,
        kept.payload,
        meta or Meta(scope="tests.ask"),
        form=kept.form,
        thaw=kept.thaw,
        payload_size=kept.size,
        cost=0.25,
        seconds=1.5,
        tokens=30,
        created_at=now,
        expires_at=now + ttl,
        gone_at=now + ttl + retention,
        stale_while_revalidate=2.0,
        stale_if_error=3.0,
        epoch=epoch,
        request=b"what was asked",
        hint=hint,
    )


def hint_of(
    text: str,
    partition: str = "p",
    *,
    embedder: str = "e",
    vector: bytes = b"vector",
    member: bytes = b"",
) -> Hint:
    """What an entry answers that answers `text`, in a partition of that name."""
    kept = blake2b(partition.encode(), digest_size=32).digest()
    return Hint(kept, text, embedder, vector, b"print of " + text.encode()[:9], member)


def answer_of(entry: Entry | None) -> Any:
    """What a caller would get."""
    assert entry is not None, "nothing was found"
    return entry.payload if entry.thaw is None else entry.thaw(entry.payload)


def brief(selector: Selector) -> str:
    """What a selector says, short enough for the name of a test."""
    said = {name: getattr(selector, name) for name in selector.__struct_fields__}
    return " ".join(
        f"{name}={value.hex()[:8] if isinstance(value, bytes) else value}"
        for name, value in said.items()
        if value not in (None, (), b"")
    )


def run_together(jobs: list[Callable[[], None]]) -> None:
    """Run `jobs` in threads that begin at the same time; re-raise the first failure."""
    barrier = threading.Barrier(len(jobs))
    failures: list[BaseException] = []

    def run(job: Callable[[], None]) -> None:
        barrier.wait(30)
        try:
            job()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
