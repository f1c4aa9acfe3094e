"""Settings from four places: who wins, how values are written, and what a mistake says."""

from __future__ import annotations

import ast
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import thinkonce.settings as settings_package
from thinkonce.errors import ConfigError
from thinkonce.settings import Settings, Sources, Upstream, data_folder
from thinkonce.settings.load import TABLES, env_name, sections
from thinkonce.settings.read import fields_of, read_value


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(folder: Path, text: str) -> Path:
    file = folder / "thinkonce.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_without_any_source_the_defaults_hold(own_data_folder: Path) -> None:
    settings = Sources(environ={}).load()
    assert settings.cache.ttl == 3600, "the gateway's answers live one hour"
    assert settings.cache.max_age == 7 * 86_400
    assert settings.cache.max_entry_bytes == 2**20
    assert settings.store.max_bytes == 2**30
    assert settings.store.url == f"sqlite:///{own_data_folder / 'answers.db'}"


def test_code_wins_over_flags_over_environment_over_toml(empty_folder: Path) -> None:
    written(empty_folder, '[gateway]\nport = 1\nhost = "a"\nretries = 1\nbody_limit = "1MiB"\n')
    environ = {
        "THINKONCE_GATEWAY_HOST": "b",
        "THINKONCE_GATEWAY_RETRIES": "2",
        "THINKONCE_GATEWAY_BODY_LIMIT": "2MiB",
    }
    flags = {"gateway.retries": 3, "gateway.body_limit": "3MiB", "gateway.host": None}
    code = {"gateway.body_limit": "4MiB"}
    gateway = Sources(environ=environ, flags=flags, code=code).load().gateway
    assert (gateway.port, gateway.host, gateway.retries, gateway.body_limit) == (
        1,
        "b",
        3,
        4 * 2**20,
    )


def test_a_reload_reads_the_file_again(empty_folder: Path) -> None:
    sources = Sources(config=written(empty_folder, "[gateway]\nport = 1\n"), environ={})
    assert sources.load().gateway.port == 1
    written(empty_folder, "[gateway]\nport = 2\n")
    assert sources.load().gateway.port == 2


def test_every_flat_setting_can_be_written_in_the_environment() -> None:
    for section, kind in sections().items():
        defaults = msgspec.structs.asdict(getattr(Settings(), section))
        for name, field in fields_of(kind).items():
            default = defaults[name]
            text = ",".join(default) if isinstance(default, list) else str(default)
            environ = {env_name(section, name): text}
            loaded = getattr(getattr(Sources(environ=environ).load(), section), name)
            if (section, name) != ("store", "url"):
                assert loaded == default, f"{environ} did not come back as {default!r}"
            assert field.doc
            assert field.accepts


def test_every_field_of_every_table_is_described() -> None:
    for kind in (*sections().values(), *TABLES.values()):
        described = set(fields_of(kind))
        declared = {field.name for field in msgspec.structs.fields(kind)}
        assert described == declared, f"{kind.__name__}: {declared - described} have no `about`"
        assert (kind.__doc__ or "").strip()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [('"5m"', 300), ('"24h"', 86_400), ("90", 90), ("1.5", 1.5), ('"warm"', "warm")],
)
def test_a_life_is_seconds_a_unit_or_a_class(
    empty_folder: Path, text: str, seconds: float | str
) -> None:
    written(empty_folder, f"[cache]\nttl = {text}\n")
    assert Sources(environ={}).load().cache.ttl == seconds


def test_none_takes_a_bound_away() -> None:
    environ = {"THINKONCE_CACHE_TTL": "none", "THINKONCE_CACHE_MAX_BYTES": "None"}
    cache = Sources(environ=environ).load().cache
    assert (cache.ttl, cache.max_bytes) == (None, None)


def test_lists_are_separated_by_commas_in_the_environment() -> None:
    environ = {"THINKONCE_CACHE_IGNORE_FIELDS": "user, metadata,"}
    assert Sources(environ=environ).load().cache.ignore_fields == ["user", "metadata"]


def test_nested_tables_come_from_the_file(empty_folder: Path) -> None:
    written(
        empty_folder,
        '[upstreams.openai]\nurls = ["https://api.openai.com/v1"]\nmodels = ["gpt-*"]\n'
        '[ttl_classes.hot]\nttl = "1m"\npriority = "low"\n'
        f'[groups]\nteam = ["{"a" * 64}"]\n',
    )
    settings = Sources(environ={}).load()
    assert settings.upstreams == {
        "openai": Upstream(urls=["https://api.openai.com/v1"], models=["gpt-*"])
    }
    assert settings.ttl_classes["hot"].ttl == 60
    assert settings.ttl_classes["static"].ttl == 86_400, "the other classes stay as they are"
    assert settings.groups == {"team": ["a" * 64]}


def test_upstreams_given_as_flags_replace_those_of_the_file(empty_folder: Path) -> None:
    written(empty_folder, '[upstreams.a]\nurls = ["http://a"]\n')
    flags = {"upstreams": {"b": Upstream(urls=["http://b"])}}
    assert list(Sources(environ={}, flags=flags).load().upstreams) == ["b"]


MISTAKES = [
    ("[gateway]\nprot = 1", "[gateway] prot", "did you mean port?"),
    ("[gatway]\nport = 1", "[gatway] is unknown", "did you mean gateway?"),
    ("gateway = 1", "gateway=1", "a table: [gateway]"),
    ("[gateway]\nport = 'x'", "[gateway] port='x'", "0 to 65535"),
    ("[gateway]\nport = 65536", "[gateway] port=65536", "0 to 65535"),
    ("[gateway]\nworkers = 65", "[gateway] workers=65", "1 to 64"),
    (
        '[gateway]\nworkers = 2\n[store]\nurl = "memory://"',
        "[store] url='memory://'",
        "share answers",
    ),
    ("[gateway]\ninline = 'maybe'", "[gateway] inline='maybe'", "true or false"),
    ("[cache]\nttl = 'wram'", "[cache] ttl='wram'", "hot, warm, cold"),
    ("[cache]\nttl = -1", "[cache] ttl=-1", "seconds"),
    ("[cache]\nttl = true", "[cache] ttl=True", "seconds"),
    ("[cache]\nmax_bytes = '1 parsec'", "[cache] max_bytes='1 parsec'", "256MiB"),
    ("[cache]\npolicy = 'lfu'", "[cache] policy='lfu'", "cost | lru | sieve | s3fifo | arc"),
    ("[cache]\njitter = 1.0", "[cache] jitter=1.0", "0 to 0.9"),
    ("[cache]\nignore_fields = [1]", "[cache] ignore_fields=[1]", "a list of field names"),
    ("[store]\nurl = 'redis://h'", "[store] url='redis://h'", "not built yet"),
    ("[store]\nurl = 'sqlite:///'", "[store] url='sqlite:///'", "sqlite:///relative.db"),
    ("[upstreams.a]\nurls = []", "[upstreams.a] urls=[]", "one URL or more"),
    ("[upstreams.a]\nurls = ['ftp://x']", "[upstreams.a] urls='ftp://x'", "https://"),
    ("[upstreams.a]\nask_usage = true", "[upstreams.a] urls is missing", "a list of http://"),
    ("[upstreams]\na = 1", "[upstreams.a]=1", "a table with urls"),
    ("[upstreams.a]\nurl = 'http://x'", "[upstreams.a] url", "did you mean urls?"),
    ("[ttl_classes.x]\nttl = 'soon'", "[ttl_classes.x] ttl='soon'", "seconds"),
    ("ttl_classes = 3", "ttl_classes=3", "a table"),
    ("[groups]\nteam = 'x'", "[groups] team='***'", "a list"),
    ("[namespaces.a]\nmax_error = 2", "[namespaces.a] max_error", "0.001 to 0.5"),
    ("[clients.a]\ngroup = 'x'", "[clients.a] key_sha256 is missing", "64 hex digits"),
    ("[clients.a]\nkey_sha256 = 'tk-secret'", "[clients.a] key_sha256='***'", "never the key"),
    (
        f"[clients.a]\nkey_sha256 = '{'a' * 64}'\nrate_limit = 0",
        "[clients.a] rate_limit=0",
        "a whole number >= 1",
    ),
    (
        f"[clients.a]\nkey_sha256 = '{'a' * 64}'\n[clients.b]\nkey_sha256 = '{'a' * 64}'",
        "[clients.b] key_sha256='***'",
        "[clients.a] has the same",
    ),
    (
        "[upstreams.a]\nurls = ['http://x']\nweights = [1, 2]",
        "[upstreams.a] weights=[1.0, 2.0]",
        "each of the 1 URLs",
    ),
    (
        "[upstreams.a]\nurls = ['http://x']\nhealth_path = 'health'",
        "[upstreams.a] health_path='health'",
        "begins with a slash",
    ),
    (
        "[upstreams.a]\nurls = ['http://x']\nfallback = ['local']",
        "[upstreams.a] fallback='local'",
        "names of other pools",
    ),
    ("[gateway\n", "--config", "TOML"),
]


@pytest.mark.parametrize(("text", "setting", "accepts"), MISTAKES)
def test_a_mistake_in_the_file_names_setting_value_and_what_works(
    empty_folder: Path, text: str, setting: str, accepts: str
) -> None:
    sources = Sources(config=written(empty_folder, text), environ={})
    with pytest.raises(ConfigError) as caught:
        sources.load()
    message = str(caught.value)
    assert message.startswith(setting), message
    assert accepts in message


def test_a_misspelt_variable_is_an_error_not_a_setting_that_does_nothing() -> None:
    with pytest.raises(ConfigError, match="did you mean THINKONCE_GATEWAY_PORT"):
        Sources(environ={"THINKONCE_GATEWAY_PRT": "1"}).load()


def test_variables_between_our_own_processes_are_no_settings() -> None:
    assert Sources(environ={"THINKONCE__ENGINE_SECRET": "x"}).load().gateway.port == 8000


def test_a_file_named_must_exist_and_one_not_named_need_not(empty_folder: Path) -> None:
    with pytest.raises(ConfigError, match="--config"):
        Sources(config=empty_folder / "absent.toml", environ={}).load()


@pytest.mark.parametrize(
    "environ",
    [
        {"THINKONCE_ADMIN_TOKEN": "secret1"},
        {"THINKONCE_STORE_SECRET": "secret1"},
    ],
)
def test_a_secret_that_is_too_short_is_refused_without_being_shown(
    environ: dict[str, str],
) -> None:
    with pytest.raises(ConfigError) as caught:
        Sources(environ=environ).load()
    assert "secret1" not in str(caught.value)


def test_a_credential_among_groups_is_not_shown(empty_folder: Path) -> None:
    config = written(empty_folder, '[groups]\nteam = ["sk-live-1234"]\n')
    with pytest.raises(ConfigError, match="64 hex digits") as caught:
        Sources(config=config, environ={}).load()
    assert "sk-live" not in str(caught.value)


PORT = fields_of(sections()["gateway"])["port"]


@given(value=st.one_of(st.integers(), st.text(), st.floats(), st.booleans(), st.none()))
def test_whatever_is_written_for_a_port_is_a_port_or_a_config_error(value: object) -> None:
    try:
        port = read_value(PORT, "port", value, ())
    except ConfigError:
        return
    assert isinstance(port, int)
    assert 0 <= port <= 65_535


def test_the_data_folder_follows_the_platform(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("THINKONCE_DATA_DIR")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert data_folder() == tmp_path / "thinkonce"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert data_folder() == Path.home() / ".local" / "share" / "thinkonce"
    assert data_folder("~/here") == Path.home() / "here"


def test_every_setting_is_read_by_somebody() -> None:
    """By name only, so it may overlook one; but a setting nobody reads would do nothing."""
    package = Path(settings_package.__file__).parent
    read = {
        node.attr
        for file in package.parent.rglob("*.py")
        if file.parent != package
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
    }
    for name, kind in {**sections(), **TABLES}.items():
        unread = set(fields_of(kind)) - read
        assert not unread, f"[{name}] {sorted(unread)}: nobody reads it"
