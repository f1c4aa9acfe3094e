"""From the flags of `serve` and `serve-model` to what the servers are started with."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from thinkonce.cli import main
from thinkonce.cli.serve import GATEWAYS_FILE, pools_of, to_read_again, with_optional_model
from thinkonce.errors import ConfigError
from thinkonce.settings import Settings, Sources


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


def test_a_codec_that_serve_model_has_not_is_named_before_a_model_is_loaded(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["serve-model", "no-such-model", "--codec", "int4"]) == 2
    said = capsys.readouterr().err
    assert "int4" in said
    assert "raw or int8" in said


@pytest.mark.parametrize(
    ("typed", "setting", "both"),
    [
        (["--kv-memory", "1kB"], "[kv] memory", "--kv-memory ([kv] memory)=1"),
        (["--kv-store", "/x"], "[kv] store", "--kv-store ([kv] store)=1"),
        (["some"], "model", "MODEL ([local] model)=1"),
        (["--device", "cude"], "device", "--device ([local] device)=1"),
        ([], "[kv] memory", "[kv] memory=1"),
        (["--kv-store", "/x"], "[kv] memory", "[kv] memory=1"),
    ],
)
def test_what_fails_after_the_start_is_called_as_it_was_typed_too(
    typed: list[str],
    setting: str,
    both: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(*_: object) -> int:
        raise ConfigError(setting, 1, "another")

    monkeypatch.setattr("thinkonce.cli.serve._run_model", run)
    assert main(["serve-model", *typed]) == 2
    assert capsys.readouterr().err == f"thinkonce: {both} does not work; use another\n"


@pytest.mark.parametrize(
    ("policy", "spins", "then"),
    [(None, None, "1000"), ("ACTIVE", None, None), (None, "7", "7")],
)
def test_torch_s_threads_spin_briefly_for_each_other_unless_somebody_wants_it_otherwise(
    policy: str | None, spins: str | None, then: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("OMP_WAIT_POLICY", policy), ("GOMP_SPINCOUNT", spins)):
        monkeypatch.setenv(name, value or "")  # so that it is put back as it was
        if value is None:
            monkeypatch.delenv(name)
    seen = []

    def run(model: str, **options: object) -> int:
        seen.append(os.environ.get("GOMP_SPINCOUNT"))
        return 0

    server = ModuleType("thinkonce.kv.serving.server")
    monkeypatch.setattr(server, "run", run, raising=False)
    monkeypatch.setitem(sys.modules, server.__name__, server)
    assert main(["serve-model", "--quiet"]) == 0
    assert seen == [then], "it is read when torch is loaded"


def test_a_gateway_s_model_reads_the_file_that_the_gateway_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "thinkonce.toml").write_text("[kv]\nchunck = 1\n")
    file = tmp_path / "given.toml"
    file.write_text("[kv]\ncodec = 'int8'\n")

    def run(settings: Settings, read: object, say: object) -> int:
        assert settings.kv.codec == "int8"
        file.write_text("[kv]\ncodec = 'int4'\n")
        return main(["serve-model", "no-such-model"])

    monkeypatch.setattr("thinkonce.gateway.serve.run", run)
    given = ["serve", "--upstream", "http://127.0.0.1:9", "--config", "given.toml"]
    assert main(given) == 2
    assert "[kv] codec='int4'" in capsys.readouterr().err, "not the file that lies there"
    assert main(["serve-model", "no-such-model"]) == 2
    assert "chunck" in capsys.readouterr().err, "it holds for the gateway's own model alone"


def test_a_gateway_s_model_reads_no_other_file_where_the_gateway_s_was_a_pipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = list[str]()
    monkeypatch.setattr(
        "thinkonce.gateway.serve.run", lambda *given: told.append(os.environ[GATEWAYS_FILE]) or 0
    )
    reading, writing = os.pipe()
    os.close(writing)
    given = ["serve", "--upstream", "http://127.0.0.1:9", "--config", f"/dev/fd/{reading}"]
    assert main(given) == 0
    os.close(reading)
    assert told == [os.devnull]


def test_a_reload_misses_the_file_that_was_there_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert to_read_again(Sources())().cache.ttl is not None, "there was none, and need be none"
    file = tmp_path / "thinkonce.toml"
    file.write_text("[cache]\nttl = 5\n")
    read = to_read_again(Sources())
    assert read().cache.ttl == 5
    file.unlink()
    with pytest.raises(ConfigError, match=r"thinkonce\.toml.*a TOML file that exists"):
        read()


def test_a_reload_does_not_take_an_empty_pipe_for_a_wish_for_the_defaults() -> None:
    """They know no clients, so everybody would be let in."""
    reading, writing = os.pipe()
    os.close(writing)
    with pytest.raises(ConfigError, match=f"--config='/dev/fd/{reading}'.*a pipe is empty"):
        to_read_again(Sources(config=Path(f"/dev/fd/{reading}")))()
    os.close(reading)
