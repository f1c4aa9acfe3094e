"""From what was written in code, flags, environment and TOML to checked `Settings`.

    code  >  flags  >  THINKONCE_<SECTION>_<NAME>  >  thinkonce.toml or --config  >  defaults

For a secret, THINKONCE_<SECTION>_<NAME>_FILE may name a file that holds it.
The first that names a setting wins. Nested tables ([upstreams.NAME], [ttl_classes.NAME]) and
[groups] come from TOML or code only. Whatever nobody knows is an error: a misspelt setting would
otherwise do nothing.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from thinkonce.errors import MISSING, UNKNOWN, ConfigError
from thinkonce.settings.check import check
from thinkonce.settings.folder import data_folder, default_store_url
from thinkonce.settings.read import fields_of, read_value
from thinkonce.settings.secret_file import SUFFIX, secret_in, secret_of
from thinkonce.settings.sections import (
    Client,
    Namespace,
    Rates,
    Section,
    Settings,
    TtlClass,
    Upstream,
    default_classes,
)

__all__ = ("FILE_NAME", "Sources", "env_name", "flag_of", "sections")

FILE_NAME = "thinkonce.toml"
PREFIX = "THINKONCE_"
# Between our own processes; no setting, and not for people to set.
INTERNAL_PREFIX = "THINKONCE__"
TABLES: dict[str, type[Section]] = {
    "upstreams": Upstream,
    "clients": Client,
    "ttl_classes": TtlClass,
    "prices": Rates,
    "namespaces": Namespace,
}

# Flags that are not called as their setting is.
FLAGS = {
    "store.url": "--store",
    "local.model": "--local",
    "local.enabled": "--local",
    "kv.memory": "--kv-memory",
    "kv.store": "--kv-store",
}

# In place of the value of what nobody knows: a misspelt setting may hold a key.
HIDDEN = "***"

Written = tuple[str, object]  # the setting as its writer knows it, and the value


@dataclass(frozen=True, slots=True)
class Sources:
    """Where settings come from; kept, so that SIGHUP can read them again.

    `flags` and `code` map "section.name" to a value, and "upstreams" to the whole table of
    {NAME: Upstream}; None in `flags` means not given. `config` None means `thinkonce.toml` in
    the working directory, if there is one.
    """

    config: Path | None = None
    flags: Mapping[str, object] = field(default_factory=dict)
    code: Mapping[str, object] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)

    def load(self) -> Settings:
        """Read everything anew. Raises ConfigError naming the setting, its value, what works."""
        tables = _toml(self.config)
        written = dict(_from_toml(tables))
        written.update(_from_environ(self.environ))
        written.update(_from_flags(self.flags))
        written.update((path, (path, value)) for path, value in self.code.items())
        classes = default_classes() | _table("ttl_classes", tables, ())
        values: dict[str, Any] = {
            name: _section(name, kind, written, classes) for name, kind in sections().items()
        }
        upstreams: Any = written.get("upstreams", ("", None))[1]
        upstreams = upstreams or _table("upstreams", tables, classes)
        values["upstreams"] = _with_secrets(upstreams, self.environ)
        values["clients"] = _table("clients", tables, classes)
        values["namespaces"] = _table("namespaces", tables, classes)
        values["prices"] = _table("prices", tables, classes)
        values["groups"] = tables.get("groups", {})
        settings = Settings(ttl_classes=classes, **values)
        check(settings, {path: name for path, (name, _) in written.items()})
        return _with_store(settings)


def sections() -> dict[str, type[Section]]:
    """The flat tables: name -> their struct."""
    types = {name: type(value) for name, value in msgspec.structs.asdict(Settings()).items()}
    return {name: kind for name, kind in types.items() if issubclass(kind, Section)}


def env_name(section: str, name: str) -> str:
    return f"{PREFIX}{section}_{name}".upper()


def flag_of(path: str) -> str:
    """What a command takes for the setting "section.name"."""
    return FLAGS.get(path) or f"--{path.split('.')[-1].replace('_', '-')}"


# -- what was written -----------------------------------------------------------------------


def _toml(config: Path | None) -> dict[str, Any]:
    path = config or Path(FILE_NAME)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if config is None:
            return {}
        raise ConfigError("--config", str(path), "a TOML file that exists") from None
    except (OSError, ValueError) as error:
        raise ConfigError("--config", str(path), f"a readable TOML file ({error})") from None


def _from_toml(tables: dict[str, Any]) -> Iterator[tuple[str, Written]]:
    flat = sections()
    for name, table in tables.items():
        if name not in {*flat, *TABLES, "groups"}:
            _unknown(f"[{name}]", name, {*flat, *TABLES, "groups"})
        if not isinstance(table, dict):
            raise ConfigError(name, _shown(table), f"a table: [{name}]")
        if name in flat:
            for key, value in table.items():
                if key not in fields_of(flat[name]):
                    _unknown(f"[{name}] {key}", key, fields_of(flat[name]))
                yield f"{name}.{key}", (f"[{name}] {key}", value)


def _from_environ(environ: Mapping[str, str]) -> Iterator[tuple[str, Written]]:
    known, secrets = {}, {}
    for section, kind in sections().items():
        for name, said in fields_of(kind).items():
            variable = env_name(section, name)
            known[variable] = f"{section}.{name}"
            if said.secret:
                secrets[variable + SUFFIX] = variable
    for variable, value in environ.items():
        if variable in known:
            yield known[variable], (variable, value)
        elif variable in secrets and value:
            if environ.get(secrets[variable]):
                raise ConfigError(variable, value, f"it, or {secrets[variable]}, not both")
            yield known[secrets[variable]], (variable, secret_of(variable, value))
        elif variable.startswith(PREFIX) and not variable.startswith(INTERNAL_PREFIX):
            _unknown(variable, variable, known)


def _from_flags(flags: Mapping[str, object]) -> Iterator[tuple[str, Written]]:
    for path, value in flags.items():
        if value is not None:
            yield path, (flag_of(path), value)


def _unknown(written: str, name: str, known: Collection[str]) -> NoReturn:
    close = get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]}?" if close else f": {', '.join(sorted(known))}"
    raise ConfigError(written, UNKNOWN, f"only settings that exist{hint}")


# -- what it means ------------------------------------------------------------------------


def _section(
    name: str, kind: type[Section], written: Mapping[str, Written], classes: Collection[str]
) -> Section:
    values = {
        field.name: read_value(field, *written[f"{name}.{field.name}"], classes)
        for field in fields_of(kind).values()
        if f"{name}.{field.name}" in written
    }
    return kind(**values)


def _table(name: str, tables: dict[str, Any], classes: Collection[str]) -> dict[str, Any]:
    """The nested tables [name.X] of the file, as {X: struct}."""
    return {
        key: _row(f"[{name}.{key}]", TABLES[name], row, classes)
        for key, row in tables.get(name, {}).items()
    }


def _row(written: str, kind: type[Section], row: object, classes: Collection[str]) -> Section:
    fields = fields_of(kind)
    if not isinstance(row, dict):
        raise ConfigError(written, _shown(row), f"a table with {', '.join(fields)}")
    for key in row:
        if key not in fields:
            _unknown(f"{written} {key}", key, fields)
    values = {
        key: read_value(fields[key], f"{written} {key}", value, classes)
        for key, value in row.items()
    }
    for known in msgspec.structs.fields(kind):
        if known.required and known.name not in values:
            accepts = f"{fields[known.name].accepts}, as {known.name} = ..."
            raise ConfigError(f"{written} {known.name}", MISSING, accepts)
    return kind(**values)


def _with_secrets(pools: Mapping[str, Upstream], environ: Mapping[str, str]) -> dict[str, Upstream]:
    """With the secrets of engines that the environment holds. One that is not there is for whoever
    asks these servers to miss (`gateway.readiness`): a model server reads the same file.
    """
    found = dict(pools)
    for name, pool in pools.items():
        if variable := pool.engine_secret_env:
            if pool.engine_secret:
                accepts = "it, or engine_secret, not both"
                raise ConfigError(f"[upstreams.{name}] engine_secret_env", variable, accepts)
            secret = secret_in(variable, environ)
            found[name] = msgspec.structs.replace(pool, engine_secret=secret)
    return found


def _shown(value: object) -> object:
    """A number as it is; a text in a wrong place may be a key."""
    return value if isinstance(value, int | float) else HIDDEN


def _with_store(settings: Settings) -> Settings:
    if settings.store.url:
        return settings
    url = default_store_url(data_folder(settings.data.dir))
    store = msgspec.structs.replace(settings.store, url=url)
    return msgspec.structs.replace(settings, store=store)
