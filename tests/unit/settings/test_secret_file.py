"""Secrets in files: THINKONCE_ADMIN_TOKEN_FILE, and the same for keys of upstreams."""

from __future__ import annotations

from pathlib import Path

import pytest

from thinkonce.errors import ConfigError
from thinkonce.gateway.readiness import complaints
from thinkonce.settings import Settings, Sources, Upstream
from thinkonce.upstream.pools import Pools

TOKEN = "a long enough token"
VARIABLE = "THINKONCE_ADMIN_TOKEN_FILE"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(f"{TOKEN}\n", encoding="utf-8")
    return path


def test_a_secret_is_read_from_the_file_that_is_named(file: Path) -> None:
    assert Sources(environ={VARIABLE: str(file)}).load().admin.token == TOKEN


def test_a_reload_reads_the_file_again(file: Path) -> None:
    sources = Sources(environ={VARIABLE: str(file)})
    sources.load()
    file.write_text("another token of mine", encoding="utf-8")
    assert sources.load().admin.token == "another token of mine"


def test_a_secret_and_a_file_with_one_are_refused_together(file: Path) -> None:
    with pytest.raises(ConfigError, match="not both"):
        Sources(environ={VARIABLE: str(file), "THINKONCE_ADMIN_TOKEN": TOKEN}).load()


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff\xfe", b"x" * 70_000])
def test_a_file_that_holds_no_secret_is_named_and_its_content_is_not(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        Sources(environ={VARIABLE: str(path)}).load()
    assert VARIABLE in str(refused.value)
    assert str(path) in str(refused.value)
    assert "xxx" not in str(refused.value)


def test_a_secret_that_is_too_short_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "short").write_text("abc", encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        Sources(environ={VARIABLE: str(tmp_path / "short")}).load()
    assert "abc" not in str(refused.value)


def test_what_is_no_secret_is_not_read_from_files(file: Path) -> None:
    with pytest.raises(ConfigError, match="THINKONCE_GATEWAY_HOST_FILE"):
        Sources(environ={"THINKONCE_GATEWAY_HOST_FILE": str(file)}).load()


def test_an_upstreams_key_is_read_from_a_file_too(file: Path) -> None:
    file.write_text("sk-own\n", encoding="utf-8")
    pools = Pools.of({"main": Upstream(urls=["http://127.0.0.1:9"], api_key_env="OWN_KEY")})
    pools.take_keys({"OWN_KEY_FILE": str(file)})
    assert pools.all[0].credential == ((b"authorization", b"Bearer sk-own"),)
    with pytest.raises(ConfigError, match="not both"):
        pools.take_keys({"OWN_KEY_FILE": str(file), "OWN_KEY": "sk-other"})


ENGINE = """
[upstreams.model]
urls = ["http://127.0.0.1:8001"]
engine_secret_env = "THE_SECRET"
"""


def test_a_model_server_s_secret_is_in_the_environment_or_a_file_and_not_in_the_settings(
    tmp_path: Path, file: Path
) -> None:
    config = tmp_path / "thinkonce.toml"
    config.write_text(ENGINE, encoding="utf-8")
    file.write_text("f" * 32, encoding="utf-8")
    for environ, secret in (
        ({"THE_SECRET": "e" * 32}, "e" * 32),
        ({"THE_SECRET_FILE": str(file)}, "f" * 32),
    ):
        settings = Sources(config=config, environ=environ).load()
        assert settings.upstreams["model"].engine_secret == secret
        assert "secret of model" not in wrong_in(settings)
    with pytest.raises(ConfigError, match="32 characters or more"):
        Sources(config=config, environ={"THE_SECRET": "short"}).load()
    config.write_text(ENGINE + f'engine_secret = "{"e" * 32}"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="not both"):
        Sources(config=config, environ={}).load()


def test_one_that_is_nowhere_is_missed_by_the_gateway_and_not_by_the_model_server(
    tmp_path: Path,
) -> None:
    config = tmp_path / "thinkonce.toml"
    config.write_text(ENGINE, encoding="utf-8")
    settings = Sources(config=config, environ={}).load()
    said = wrong_in(settings)["secret of model"]
    assert "[upstreams.model] engine_secret_env='THE_SECRET' does not work" in said
    assert "THE_SECRET_FILE" in said


def wrong_in(settings: Settings) -> dict[str, str]:
    return {name: str(wrong) for name, wrong in complaints(settings, {}) if wrong is not None}
