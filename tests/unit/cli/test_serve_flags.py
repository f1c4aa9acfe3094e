"""From the flags of `serve` and `serve-model` to what the servers are started with."""

from __future__ import annotations

import pytest

from thinkonce.cli.serve import pools_of, with_optional_model
from thinkonce.errors import ConfigError


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["serve", "--local"], ["serve", "--local="]),
        (["serve", "--local", "--port", "1"], ["serve", "--local=", "--port", "1"]),
        (["serve", "--local", "dir"], ["serve", "--local", "dir"]),
        (["serve", "--local=dir"], ["serve", "--local=dir"]),
        (["serve"], ["serve"]),
    ],
)
def test_local_takes_a_model_or_nothing(given: list[str], read: list[str]) -> None:
    assert with_optional_model(given) == read


def test_each_upstream_is_a_pool_of_its_own() -> None:
    pools = pools_of(["https://api.openai.com/v1", "http://127.0.0.1:9/v1", "http://127.0.0.1:9"])
    assert list(pools) == ["api.openai.com", "http://127.0.0.1:9", "http://127.0.0.1:9+"]
    assert [pool.urls for pool in pools.values()] == [
        ["https://api.openai.com/v1"],
        ["http://127.0.0.1:9/v1"],
        ["http://127.0.0.1:9"],
    ], "nobody declared them equivalent, so they share no answers"


def test_a_credential_inside_an_upstream_names_no_pool() -> None:
    assert list(pools_of(["https://user:secret@host/v1"])) == ["host"]


def test_one_upstream_given_twice_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="each URL once"):
        pools_of(["http://a", "http://a"])


def test_two_paths_of_one_host_never_share_a_name_whatever_their_order() -> None:
    first, second = "https://host/team-a/v1", "https://host/team-b/v1"
    assert list(pools_of([first, second])) == ["host/team-a", "host/team-b"]
    assert list(pools_of([second])) == ["host/team-b"]
