"""What a call costs: list prices, overrides, and the provider's own cached input."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkonce.errors import ConfigError
from thinkonce.insight.prices import TYPICAL, TYPICAL_EMBEDDINGS, Price, Prices
from thinkonce.protocols.billing import Billed, billed
from thinkonce.protocols.reply import Reply, Shape
from thinkonce.protocols.usage import counted
from thinkonce.settings import Sources


def reply(usage: dict[str, object], prompt: int, completion: int) -> Reply:
    return Reply(
        status=200,
        content_type="application/json",
        shape=Shape.JSON,
        usage=json.dumps(usage).encode(),
        prompt_tokens=prompt,
        completion_tokens=completion,
    )


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 100, "completion_tokens": 10}, Billed(input=100, output=10)),
        (
            {"prompt_tokens": 100, "prompt_tokens_details": {"cached_tokens": 64}},
            Billed(input=36, cached=64, output=10),
        ),
        (
            {
                "input_tokens": 100,
                "input_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30},
            },
            Billed(input=10, cached=60, written=30, output=10),
        ),
        (
            {
                "input_tokens": 10,
                "cache_read_input_tokens": 60,
                "cache_creation_input_tokens": 30,
                "cache_creation": {
                    "ephemeral_5m_input_tokens": 10,
                    "ephemeral_1h_input_tokens": 20,
                },
            },
            Billed(input=10, cached=60, written=10, written_1h=20, output=10),
        ),
        (
            {"prompt_tokens": 100, "prompt_cache_hit_tokens": 96, "prompt_cache_miss_tokens": 4},
            Billed(input=4, cached=96, output=10),
        ),
        ({"prompt_tokens": 100, "cached_tokens": 50}, Billed(input=50, cached=50, output=10)),
        ({"prompt_tokens_details": {"cached_tokens": None}}, Billed(input=100, output=10)),
        ({"prompt_tokens_details": "none"}, Billed(input=100, output=10)),
    ],
    ids=["plain", "openai", "responses", "anthropic", "deepseek", "moonshot", "null", "odd"],
)
def test_each_token_is_billed_at_one_rate(usage: dict[str, object], expected: Billed) -> None:
    assert billed(reply(usage, 100, 10)) == expected


@given(
    prompt=st.integers(0, 10**6),
    parts=st.lists(st.integers(-5, 10**7), min_size=4, max_size=4),
)
def test_the_parts_add_up_to_the_tokens_whatever_is_claimed(prompt: int, parts: list[int]) -> None:
    usage: dict[str, object] = {
        "cache_read_input_tokens": parts[0],
        "prompt_tokens_details": {"cached_tokens": parts[1], "cache_write_tokens": parts[2]},
        "cache_creation": {"ephemeral_1h_input_tokens": parts[3]},
    }
    found = billed(reply(usage, prompt, 3))
    numbers = (found.input, found.cached, found.written, found.written_1h)
    assert min(numbers) >= 0
    assert sum(numbers) == prompt


def test_thoughts_that_only_the_total_counts_are_output() -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 115}
    assert counted(usage).completion_tokens == 105
    assert counted({"prompt_tokens": 10, "completion_tokens": 5}).completion_tokens == 5


def test_cached_input_costs_what_the_list_says() -> None:
    prices = Prices()
    plain = prices.cost(["gpt-4o"], Billed(input=1000, output=100))
    cached = prices.cost(["gpt-4o"], Billed(input=200, cached=800, output=100))
    assert plain == pytest.approx((1000 * 2.5 + 100 * 10) / 1e6)
    assert cached == pytest.approx((200 * 2.5 + 800 * 1.25 + 100 * 10) / 1e6)
    written = Billed(input=10, written=100, written_1h=50)
    expected = (10 * 3 + 100 * 3.75 + 50 * 6) / 1e6
    assert prices.cost(["claude-sonnet-4-5-20250929"], written) == pytest.approx(expected)


def test_a_rate_that_is_not_listed_makes_the_cost_unknown() -> None:
    prices = Prices({"house": Price(1.0, 2.0)})
    assert prices.cost(["house"], Billed(input=1_000_000)) == 1.0
    assert prices.cost(["house"], Billed(input=10, cached=1)) is None
    assert prices.cost(["nobody-knows-it"], Billed(input=10)) is None
    assert prices.cost(["house"], Billed()) is None, "no tokens: nobody counted"


def test_every_listed_price_is_ordered_as_providers_bill() -> None:
    prices = Prices()
    assert len(prices) > 50
    assert prices.as_of.startswith("20")
    for name, price in prices._prices.items():
        assert price.input > 0, name
        assert price.cached_input is None or price.cached_input < price.input, name
        assert price.cache_write is None or price.cache_write >= price.input, name
        if price.cache_write_1h is not None:
            assert price.cache_write is not None, name
            assert price.cache_write_1h > price.cache_write, name


def test_a_users_price_wins_over_the_list(tmp_path: Path) -> None:
    path = tmp_path / "thinkonce.toml"
    path.write_text('[prices."gpt-4o"]\ninput = 1\noutput = 4\ncached_input = 0.25\n')
    row = Sources(config=path, environ={}).load().prices["gpt-4o"]
    prices = Prices({"gpt-4o": Price(row.input, row.output, row.cached_input)})
    assert prices.cost(["gpt-4o-2024-08-06"], Billed(cached=1_000_000)) == 0.25
    assert prices.overridden == 1


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ("input = -1\noutput = 1", "input"),
        ("input = inf\noutput = 1", "input"),
        ("input = 1", "output"),
        ("input = 1\noutput = 1\nimages = 3", "images"),
    ],
)
def test_a_price_that_cannot_be_is_named(tmp_path: Path, row: str, named: str) -> None:
    path = tmp_path / "thinkonce.toml"
    path.write_text(f"[prices.house]\n{row}\n")
    with pytest.raises(ConfigError, match=named):
        Sources(config=path, environ={}).load()


def test_an_unknown_models_call_is_weighed_at_the_lists_median() -> None:
    listed = json.loads(files("thinkonce.insight").joinpath("prices.json").read_bytes())
    rows = listed["models"].values()
    writing = [row for row in rows if row["output"]]
    assert TYPICAL.input == median(row["input"] for row in writing)
    assert TYPICAL.output == median(row["output"] for row in writing)
    embeddings = [row["input"] for row in rows if not row["output"]]
    assert TYPICAL_EMBEDDINGS.input == pytest.approx(median(embeddings))


def test_worth_is_dollars_whatever_is_known() -> None:
    prices = Prices({"mine": Price(input=1.0, output=4.0)})
    call = Billed(input=1_000_000, output=1_000_000)
    assert prices.worth(("mine",), call, 9.0) == prices.cost(("mine",), call) == 5.0
    assert prices.worth(("nobody's",), call, 9.0) == 12.0
    assert prices.worth(("nobody's",), Billed(input=1_000_000), 9.0) == 0.075
    assert prices.worth(("mine",), Billed(), 2.0) == pytest.approx(0.001)
    partly = Billed(input=500_000, cached=500_000, written=500_000, output=500_000)
    assert prices.cost(("mine",), partly) is None
    assert prices.worth(("mine",), partly, 9.0) == 3.5
