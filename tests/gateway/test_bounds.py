"""What the gateway keeps beside the memory tier has bounds of its own."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from weakref import ref

from gateway.conftest import CHAT, Running, Stage, settings_of
from gateway.upstream import Out, Seen, completion
from thinkonce.engine.marks import Ready
from thinkonce.engine.parts import LEAST, MOST, OVERHEAD, Parts, share_of
from thinkonce.engine.plates import Plate
from thinkonce.entry import Entry, Form, Meta
from thinkonce.insight.prices import Prices
from thinkonce.insight.savings import Saved, Savings
from thinkonce.protocols.dialect import Asked
from thinkonce.protocols.registry import DIALECTS
from thinkonce.protocols.reply import Reply, Shape, encode_reply

MIB = 1024 * 1024
ANSWER = "x" * 200_000
DIALECT = DIALECTS["chat/completions"]
SHAPES = [Asked(), Asked(stream=True), Asked(stream=True, include_usage=True)]


def parts_of(gateway: Running) -> Parts:
    return gateway.assembly.gateway.cached[CHAT]._teller.parts


async def large(seen: Seen, out: Out) -> None:
    await out.json(completion(ANSWER))


async def test_many_distinct_hits_leave_no_more_ready_than_the_bound(stage: Stage) -> None:
    gateway = await stage.gateway(cache={"max_bytes": 64 * MIB})
    stage.upstream.script = large
    parts = parts_of(gateway)
    for number in range(30):
        await gateway.chat(str(number))
        for stream in (False, True):
            assert (await gateway.chat(str(number), stream=stream)).cache == "HIT"
        assert parts.bytes <= parts.max_bytes == LEAST
    assert len(gateway.assembly.shelf.memory) == 30, "what is stored has nothing to do with it"
    assert 0 < len(parts) < 30
    assert (await gateway.chat("0")).text == ANSWER, "what was dropped is made ready again"


def entry_of(number: int, texts: int) -> Entry:
    event = b'{"id":"chatcmpl-1","object":"chat.completion.chunk","created":17,"model":"m",'
    deltas = [b'"choices":[{"index":0,"delta":{"content":"word"},"finish_reason":null}]}'] * texts
    last = b'"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'
    events = tuple(event + rest for rest in [*deltas, last])
    payload = encode_reply(Reply(200, "text/event-stream", Shape.STREAM, events=events))
    return Entry(None, payload, Meta(), number.to_bytes(32, "big"), form=Form.REPLY)


def test_the_latest_used_stay_and_another_answer_takes_the_place_of_its_elder() -> None:
    entries = [entry_of(number, 1) for number in range(4)]
    alone = Parts(Prices(), 10**9)
    assert alone.serving(entries[0], DIALECT, SHAPES[1]) is not None
    parts = Parts(Prices(), 3 * alone.bytes)
    ready = [parts.serving(entry, DIALECT, SHAPES[1]) for entry in entries[:3]]
    assert parts.serving(entries[0], DIALECT, SHAPES[1]) is ready[0]
    parts.serving(entries[3], DIALECT, SHAPES[1])
    assert parts.ready(entries[0], DIALECT) is ready[0]
    assert parts.ready(entries[1], DIALECT) is not ready[1], "it was not used for longest"
    newer = entry_of(0, 1)
    assert parts.ready(newer, DIALECT) is not ready[0]
    assert len(parts) == 3
    assert parts.bytes <= parts.max_bytes


def plate_of(parts: Parts, entry: Entry) -> Plate:
    account = Savings(lambda: 0.0).account(Saved.HIT, entry.meta, priced=False, estimated=False)

    def make(ready: Ready) -> Plate:
        return Plate(entry, ready, SHAPES[1], account, DIALECT.fresh_id)

    plate = parts.plate(entry, DIALECT, SHAPES[1], make)
    assert plate is not None
    return plate


def test_what_a_plate_has_printed_from_gets_one_more_turn() -> None:
    entries = [entry_of(number, 1) for number in range(6)]
    alone = Parts(Prices(), 10**9)
    plate_of(alone, entries[0])
    parts = Parts(Prices(), 3 * alone.bytes)
    plates = [ref(plate_of(parts, entry)) for entry in entries[:3]]
    printing = plates[0]()
    assert printing is not None
    printing.used, printing = True, None  # as whoever asks it to print notes
    gone = []
    for entry in entries[3:]:
        plate_of(parts, entry)
        gone.append([plate() is None for plate in plates])
    assert gone == [[False, True, False], [False, True, True], [False, True, True]]
    plate_of(parts, entries[1])
    assert plates[0]() is None
    assert len(parts) == 3


def test_a_plate_is_of_one_entry_even_where_another_has_the_same_bytes() -> None:
    parts, entry = Parts(Prices(), 10**9), entry_of(1, 1)
    older = plate_of(parts, entry)
    twin = replace(entry, created_at=entry.created_at + 9)
    newer = plate_of(parts, twin)
    assert (older.entry, newer.entry) == (entry, twin)
    now = entry.created_at + 10
    assert b"\r\nage: 10\r\n" in older.print(b"1", now, 0.0)[0]
    assert b"\r\nage: 1\r\n" in newer.print(b"1", now, 0.0)[0]


def test_what_is_larger_than_the_bound_serves_and_is_not_kept() -> None:
    parts = Parts(Prices(), OVERHEAD)
    assert parts.serving(entry_of(1, 100), DIALECT, SHAPES[1]) is not None
    assert (len(parts), parts.bytes) == (0, 0)


def test_what_is_counted_is_what_is_taken() -> None:
    for texts in (1, 20, 400):
        parts = Parts(Prices(), 10**9)
        entries = [entry_of(number, texts) for number in range(50)]
        tracemalloc.start()
        try:
            for entry in entries:
                for asked in SHAPES:
                    parts.serving(entry, DIALECT, asked)
            taken, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert 0.5 < taken / parts.bytes < 1.1, (texts, taken, parts.bytes)


def test_the_share_follows_the_memory_tiers_bound() -> None:
    def share(max_bytes: int | None, least: int = 0) -> int:
        return share_of(settings_of({}, cache={"max_bytes": max_bytes}), least=least)

    assert share(256 * MIB) == 32 * MIB
    assert share(8 * MIB) == MIB
    assert share(8 * MIB, LEAST) == LEAST
    assert share(None) == share(8 * 1024 * MIB) == MOST
