"""Recorded requests replayed: numbers that can be counted by hand, and their bounds."""

from __future__ import annotations

import gzip
import json
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinkonce.cli import main
from thinkonce.errors import ConfigError
from thinkonce.kv.planning.replay import PLANNED, replayed
from thinkonce.kv.planning.trace import Request, Trace, read_trace
from thinkonce.kv.prefix.choice import POLICIES, policy_of
from thinkonce.kv.prefix.eviction import UNUSED, LeafLru, Room
from thinkonce.kv.prefix.policies.forward_decay import ForwardDecay
from thinkonce.kv.prefix.policies.guarded import ALLOWANCE, Guarded
from thinkonce.settings.kv import KvPolicy

SIZE = 10


def trace(*prompts: str, every: float = 1.0) -> Trace:
    """Each letter is a block; a prompt has one token more than its blocks."""
    requests = [
        Request(number * every, SIZE * len(prompt) + 1, names(prompt))
        for number, prompt in enumerate(prompts)
    ]
    return Trace(requests, SIZE)


def names(prompt: str) -> tuple[str, ...]:
    return tuple(prompt[: at + 1] for at in range(len(prompt)))


def test_what_prompts_share_is_loaded_from_the_second_on() -> None:
    found = replayed(trace("abc", "abd", "abc"), "lru", 10)
    assert found.hit_ratio == (0 + 20 + 30) / (3 * 31)
    assert (found.read_p50, found.read_p99, found.evicted) == (11, 31, 0)


def test_a_prompt_that_ends_with_a_block_reads_that_block() -> None:
    exact = Trace([Request(0.0, 2 * SIZE, ("a", "ab")), Request(1.0, 2 * SIZE, ("a", "ab"))], SIZE)
    assert replayed(exact, "lru", 10).hit_ratio == SIZE / (4 * SIZE)


def test_the_clairvoyant_keeps_what_comes_back() -> None:
    scan = trace("a", "b", "c", "a", "b", "c")
    assert replayed(scan, "lru", 2).hit_ratio == 0
    assert replayed(scan, "clairvoyant", 2).hit_ratio == 2 * SIZE / (6 * 11)


def test_forward_decay_keeps_what_was_used_often_where_lru_forgets_it() -> None:
    scan = trace("a", "a", "a", "b", "c", "a")
    assert replayed(scan, "lru", 2).hit_ratio == 2 * SIZE / (6 * 11)
    assert replayed(scan, "forward_decay", 2).hit_ratio == 3 * SIZE / (6 * 11)


prompts = st.lists(st.text("abc", min_size=1, max_size=5), min_size=1, max_size=25)


@given(prompts, st.integers(1, 12))
@settings(max_examples=60)
def test_no_policy_loads_more_than_what_was_read_before(asked: list[str], room: int) -> None:
    most, seen = 0, set[str]()
    for prompt in asked:
        most += SIZE * len(seen & {*names(prompt)})
        seen |= {*names(prompt)}
    tokens = sum(SIZE * len(prompt) + 1 for prompt in asked)
    for policy in PLANNED:
        assert replayed(trace(*asked), policy, room).hit_ratio <= most / tokens
        assert replayed(trace(*asked), policy, 10_000).hit_ratio == most / tokens


def loaded(asked: list[str], policy: str, room: int) -> float:
    """In blocks."""
    tokens = sum(SIZE * len(prompt) + 1 for prompt in asked)
    return replayed(trace(*asked), policy, room).hit_ratio * tokens / SIZE


def test_the_guard_lets_go_of_what_was_popular_once() -> None:
    asked = ["ABCDEFGH"] * 1000 + [*"abcdefghij"] * 100
    lru, decay, guarded = (loaded(asked, name, 10) for name in ("lru", "forward_decay", "guarded"))
    assert decay < lru - 500
    assert guarded >= lru - ALLOWANCE * sum(map(len, asked)) - 2 * 10 - 8


@given(prompts, st.lists(st.integers(1, 4), min_size=1, max_size=6), st.integers(1, 12))
@settings(max_examples=60)
def test_guarded_is_behind_lru_by_no_more_than_it_says(
    asked: list[str], times: list[int], room: int
) -> None:
    asked = [prompt for often in times for prompt in asked * often]
    behind = loaded(asked, "lru", room) - loaded(asked, "guarded", room)
    assert behind <= ALLOWANCE * sum(map(len, asked)) + 2 * room + 5 + 1e-6


@given(st.lists(st.floats(0, 5000), min_size=1, max_size=30).map(sorted))
def test_a_number_of_uses_never_falls_and_is_never_behind_the_last_use(times: list[float]) -> None:
    policy, block = ForwardDecay(10), Block()
    ranks = []
    for now in times:
        policy.touch([block], now)
        ranks.append(block.rank)
        assert block.rank >= now
    assert all(before <= after for before, after in pairwise(ranks))


class Block:
    """What a policy sees."""

    rank = UNUSED
    start = 0
    id = b"a"


def test_uses_long_ago_count_for_nothing_and_memory_of_them_is_bounded() -> None:
    policy, block = ForwardDecay(most=2), Block()
    policy.touch([block], 0.0)
    policy.touch([block], 1e9)
    assert block.rank == 1e9
    for name in (b"b", b"c"):
        other = Block()
        other.id = name
        policy.touch([other], 1e9)
    policy.touch([block], 1e9 + 1)
    assert block.rank == 1e9 + 1, "it was forgotten"
    assert LeafLru().key(block) == (block.rank, 0)


def test_what_was_used_at_second_zero_is_known() -> None:
    """As traces begin there."""
    policy, block = Guarded(1, 5), Block()
    for _ in range(2):
        policy.touch([block], 0.0)
    assert policy.known == policy.wanted == 1


def test_the_setting_names_every_policy_and_each_is_made_for_the_room_there_is() -> None:
    assert get_args(KvPolicy) == tuple(POLICIES)
    for name in POLICIES:
        assert policy_of(name, Room(3)).name == name
    tail = policy_of("tail", Room(3, lambda: 7.0))
    tail.touch([Block()], 0.0)
    assert tail.turns == 1, "it asked for its target"


MOONCAKE = [
    {"timestamp": 2000, "input_length": 1024, "hash_ids": [0, 1]},
    {"timestamp": 1000, "input_length": 700, "hash_ids": [0, 7]},
]
CODING = {
    "id": "one",
    "block_size": 64,
    "hash_id_scope": "local",
    "requests": [{"t": 3.0, "in": 130, "hash_ids": [1, 2]}, {"t": 1.0, "in": 64, "type": "s"}],
}


@pytest.mark.parametrize("packed", [False, True])
def test_both_forms_are_read_in_the_order_of_their_times(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / ("trace.jsonl.gz" if packed else "trace.jsonl")
    raw = "\n".join(map(json.dumps, MOONCAKE)).encode() + b"\n\n"
    path.write_bytes(gzip.compress(raw) if packed else raw)
    assert read_trace(str(path)) == Trace(
        [Request(1.0, 700, ("0", "7")), Request(2.0, 1024, ("0", "1"))], 512
    )
    path.write_bytes(
        gzip.compress(json.dumps(CODING).encode()) if packed else json.dumps(CODING).encode()
    )
    assert read_trace(str(path)) == Trace([Request(3.0, 130, ("one 1", "one 2"))], 64)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "lines with hash_ids"),
        ("nonsense", "line 1"),
        ('{"timestamp": 1, "hash_ids": []}', "line 1.*input_length"),
        (json.dumps(MOONCAKE[0]) + "\n" + json.dumps(CODING), "blocks of one size"),
    ],
)
def test_what_is_no_trace_is_named(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigError, match=named):
        read_trace(str(path))
    with pytest.raises(ConfigError, match="a file that can be read"):
        read_trace(str(tmp_path / "none"))


def test_the_command_shows_a_row_for_each_size_and_policy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text("\n".join(map(json.dumps, MOONCAKE)))
    assert main(["plan", "--kv", str(path), "--blocks", "1", "--blocks", "3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["requests"], told["distinct"], told["block_tokens"]) == (2, 3, 512)
    assert [(run["blocks"], run["policy"]) for run in told["runs"]] == [
        (size, policy) for size in (1, 3) for policy in PLANNED
    ]
    assert main(["plan", "--kv", str(path)]) == 0
    assert "lru" in capsys.readouterr().out
    assert main(["plan", "--kv", str(path), "--blocks", "0"]) == 2
    assert main(["plan"]) == 2
