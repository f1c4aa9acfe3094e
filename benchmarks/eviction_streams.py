"""The streams of requests that `eviction.py` replays: one made here, and classic traces.

response-zipf-a imitates what a cache of answers sees: a Zipf core whose ranks drift, questions
asked once, and topics that are hot for a while. Traces are read from a folder of shared data
beside the checkout and may be absent.
"""

from __future__ import annotations

import csv
import gzip
import io
import lzma
from array import array
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np
import zstandard

from thinkonce.eviction.simulate import Access

__all__ = ("DATA", "SEED", "TRACES", "adapt_size", "response_zipf", "trace", "unit_zipf")

SEED = 20_261_122
DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "eviction_traces"

ONE_OFF, BURST = 0.25, 0.10  # shares of requests
ERAS, DRIFT = 20, 0.15  # at each of 20 turns this share of ranks becomes something new
TOPIC_EVERY, TOPIC_IDS = 2000, 20  # a topic is hot for two such spans
TIERS, TIER_SHARES = (1, 8, 50), (0.65, 0.28, 0.07)  # price per token, relative
LIVES, LIFE_SHARES = (300.0, 3600.0, 86_400.0), (0.3, 0.4, 0.3)  # seconds
SPAN = 2 * 86_400.0  # seconds over which the requests arrive


def zipf_ids(exponent: float, requests: int, ranks: int, seed: int) -> np.ndarray:
    """Ids of `requests` requests, numbered from 0 without gaps."""
    random = np.random.default_rng(seed)
    weights = np.arange(1, ranks + 1, dtype=np.float64) ** -exponent
    cumulative = np.cumsum(weights) / weights.sum()
    id_of_rank = np.arange(ranks)
    unused = ranks
    topics: list[np.ndarray] = []
    ids = np.empty(requests, dtype=np.int64)
    for start in range(0, requests, TOPIC_EVERY):
        if start and start % (requests // ERAS) == 0:
            changed = random.choice(ranks, int(DRIFT * ranks), replace=False)
            id_of_rank[changed] = unused + np.arange(len(changed))
            unused += len(changed)
        topics = [*topics[-1:], unused + np.arange(TOPIC_IDS)]
        unused += TOPIC_IDS
        count = min(TOPIC_EVERY, requests - start)
        kind = random.random(count)
        core = id_of_rank[np.searchsorted(cumulative, random.random(count))]
        hot = np.concatenate(topics)[random.integers(0, TOPIC_IDS * len(topics), count)]
        once = unused + np.arange(count)
        unused += count
        ids[start : start + count] = np.where(
            kind < ONE_OFF, once, np.where(kind < ONE_OFF + BURST, hot, core)
        )
    return np.unique(ids, return_inverse=True)[1]


@lru_cache(maxsize=1)
def response_zipf(exponent: float, requests: int = 400_000) -> tuple[list[Access], int]:
    """The stream, and the bytes of all its distinct answers together."""
    ids = zipf_ids(exponent, requests, 3 * requests // 20, SEED)
    random = np.random.default_rng(SEED + 1)
    distinct = int(ids.max()) + 1
    tokens_out = np.clip(random.lognormal(5.5, 0.9, distinct), 8, 8000).astype(np.int64)
    tokens_in = np.clip(random.lognormal(6.3, 1.3, distinct), 20, 100_000).astype(np.int64)
    size = 4 * tokens_out + 300
    cost = (4 * tokens_out + tokens_in) * random.choice(TIERS, distinct, p=TIER_SHARES)
    life = random.choice(LIVES, distinct, p=LIFE_SHARES)
    # Poisson arrivals, given their number: uniform instants in order.
    at = np.sort(random.random(requests)) * SPAN
    columns = (ids, size[ids], cost[ids].astype(np.float64), life[ids], at)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [Access(*row) for row in rows], int(size.sum())


@lru_cache(maxsize=1)
def unit_zipf(exponent: float, requests: int = 600_000) -> list[int]:
    """llm-zipf: the same law without sizes, over more ranks."""
    ids: list[int] = zipf_ids(exponent, requests, requests // 6, SEED).tolist()
    return ids


def cache2k(name: str, count: int | None = None) -> list[int]:
    with lzma.open(DATA / name) as file:
        return array("i", file.read() if count is None else file.read(4 * count)).tolist()


def lirs(name: str) -> list[int]:
    with gzip.open(DATA / name, "rt") as file:
        return [int(line) for line in file if line.strip() not in ("", "*")]


def cloud_physics() -> list[int]:
    with gzip.open(DATA / "cloudPhysicsIO.csv.gz", "rt") as file:
        return [int(row["lbn"]) for row in csv.DictReader(file)]


def arc_p3() -> list[int]:
    with open(DATA / "arc_P3.lis.zst", "rb") as file:
        lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file))
        ranges = (map(int, line.split()[:2]) for line in lines)
        return [block for start, count in ranges for block in range(start, start + count)]


def adapt_size() -> list[Access]:
    with lzma.open(DATA / "adapt_size_request.trace.xz", "rt") as file:
        rows: Iterable[tuple[int, ...]] = (tuple(map(int, line.split())) for line in file)
        return [Access(key, size) for _, key, size in rows]


TRACES: dict[str, Callable[[], list[int]]] = {
    "web07": lambda: cache2k("cache2k_web07.trace.xz"),
    "orm-night, first 500k": lambda: cache2k("cache2k_orm-night.trace.xz", 500_000),
    "lirs multi3": lambda: lirs("lirs_multi3.trace.gz"),
    "cloudPhysicsIO": cloud_physics,
    "arc P3": arc_p3,
}


@lru_cache(maxsize=1)
def trace(name: str) -> list[int]:
    return TRACES[name]()
