"""Numbers of several workers, added up."""

from __future__ import annotations

import msgspec

from thinkonce.entry import Meta
from thinkonce.gateway.counts import Counts
from thinkonce.gateway.metrics import exposition
from thinkonce.gateway.numbers import Counted, Numbers, of_the_gone, total
from thinkonce.gateway.saving import Keeper
from thinkonce.insight.savings import Book, Saved, Savings
from thinkonce.sums import rows_of
from thinkonce.tiers.tier import TierStats

HIT, MISS = (("chat/completions", "m", outcome, "") for outcome in ("hit", "miss"))


def numbers(hits: int, misses: int, entries: int) -> Numbers:
    metrics = Counts(keeper=Keeper(Savings(lambda: 0.0), None))
    for _ in range(hits):
        metrics.count(HIT, 0.0001)
    for _ in range(misses):
        metrics.count(MISS, 3.0)
        metrics.savings.account(Saved.HIT, Meta(model="m")).add(2, 500, 1_000)
    metrics.savings.collect()
    tiers = {"memory": TierStats(entries, 10 * entries, {"expired": entries})}
    return Numbers(metrics.counted, tiers, inflight=1, following=2)


def test_counters_histograms_and_labels_are_summed() -> None:
    both = total([numbers(2, 1, 5), numbers(1, 0, 7)])
    text = exposition(both, Book(rows_of(both.counted.savings)))[1].decode()
    labels = 'endpoint="chat/completions",match="",model="m",outcome="{}"'
    assert f"thinkonce_requests_total{{{labels.format('hit')}}} 3.0" in text
    assert f"thinkonce_requests_total{{{labels.format('miss')}}} 1.0" in text
    assert 'thinkonce_request_seconds_bucket{le="0.0005",outcome="hit"} 3.0' in text
    assert 'thinkonce_request_seconds_bucket{le="5.0",outcome="miss"} 1.0' in text
    assert 'thinkonce_request_seconds_sum{outcome="miss"} 3.0' in text
    assert 'thinkonce_entries{tier="memory"} 12.0' in text
    assert 'thinkonce_evictions_total{reason="expired"} 12.0' in text
    assert "thinkonce_saved_tokens_total 2.0" in text
    assert "thinkonce_inflight 2.0" in text
    assert both.following == 4


def test_adding_leaves_what_is_added_as_it_was() -> None:
    one, other = numbers(2, 1, 5), numbers(1, 0, 7)
    before = msgspec.msgpack.encode([one, other])
    total([one, other])
    assert msgspec.msgpack.encode([one, other]) == before


def test_a_worker_that_ended_leaves_its_counts_and_holds_nothing() -> None:
    left = of_the_gone(numbers(2, 1, 5))
    assert left.counted == numbers(2, 1, 5).counted
    assert (left.inflight, left.following) == (0, 0)
    assert left.tiers == {"memory": TierStats(0, 0, {"expired": 5})}


def test_what_a_worker_counted_reaches_another_process_unchanged() -> None:
    sent = numbers(2, 1, 5)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(sent), type=Numbers) == sent


def test_every_field_that_is_counted_can_be_added() -> None:
    filled = Counted(
        requests={HIT: 1}, tier_errors={"sqlite": 1}, coalesced=1, feedback={"wrong": 1}
    )
    doubled = total([Numbers(filled, {}), Numbers(filled, {})]).counted
    assert (doubled.requests, doubled.coalesced) == ({HIT: 2}, 2)
    assert (doubled.tier_errors, doubled.feedback) == ({"sqlite": 2}, {"wrong": 2})
