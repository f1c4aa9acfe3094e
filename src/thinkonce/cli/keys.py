"""`keys`: known clients of the gateway, written into its configuration.

A key is shown once, when it is made; the file gets its SHA-256. The rest of the file, comments
included, stays as it was. Running servers take changes up at SIGHUP.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from thinkonce.cli.options import AsJson, Config
from thinkonce.cli.output import print_json, print_table, show_bytes
from thinkonce.errors import ConfigError
from thinkonce.settings import Settings, Sources
from thinkonce.settings.load import FILE_NAME

if TYPE_CHECKING:
    from tomlkit import TOMLDocument

__all__ = ("PREFIX", "register")

# By which people and scanners of leaked secrets tell what it is.
PREFIX = "tk-"
_BYTES = 32  # of randomness

Name = Annotated[str, typer.Argument(help="The client's name.")]

keys = typer.Typer(
    help="Known clients of the gateway.",
    epilog="Example: thinkonce keys add alice --models 'gpt-*' --rate-limit 60",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def register(app: typer.Typer) -> None:
    app.add_typer(keys, name="keys")


@keys.command("add", epilog="Example: thinkonce keys add alice --group team --rate-limit 60")
def add(
    name: Name,
    group: Annotated[str | None, typer.Option(help="Its members share answers.")] = None,
    models: Annotated[
        list[str] | None, typer.Option(help="A pattern it may ask for; may be repeated.")
    ] = None,
    rate_limit: Annotated[int | None, typer.Option(help="Requests a minute.")] = None,
    max_concurrent: Annotated[
        int | None, typer.Option(help="Requests under way at a time.")
    ] = None,
    max_bytes: Annotated[
        str | None, typer.Option(help="What its answers may take, such as 256MiB.")
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Make a key for a client and show it, once."""
    path = _path(config)
    document = _read(path)
    if name in _clients(document):
        raise ConfigError("name", name, "one that no client has; `keys revoke` frees it")
    key = PREFIX + secrets.token_urlsafe(_BYTES)
    row = {
        "key_sha256": hashlib.sha256(key.encode()).hexdigest(),
        "group": group,
        "models": models,
        "rate_limit": rate_limit,
        "max_concurrent": max_concurrent,
        "max_bytes": max_bytes,
    }
    _append(document, name, {field: value for field, value in row.items() if value is not None})
    settings = _write(path, document)
    _warn(settings)
    if as_json:
        print_json({"name": name, "key": key, "config": str(path)})
    else:
        print(f"{key}\n\nThis is shown once. {name} is in {path}; SIGHUP makes servers read it.")


@keys.command("list", epilog="Example: thinkonce keys list --json")
def list_clients(config: Config = None, as_json: AsJson = False) -> None:
    """The known clients and what they may do; never a key."""
    settings = Sources(config=_path(config) if config else None).load()
    clients, tenants = settings.clients, _tenants(settings)
    if as_json:
        rows = {name: msgspec.structs.asdict(client) for name, client in clients.items()}
        print_json(
            [{"name": name, **row, "tenant": tenants.get(name)} for name, row in rows.items()]
        )
        return
    print_table(
        ("NAME", "GROUP", "MODELS", "RATE", "AT ONCE", "BYTES", "DIGEST", "TENANT"),
        [
            (
                name,
                client.group or "-",
                ", ".join(client.models) or "all",
                "-" if client.rate_limit is None else f"{client.rate_limit}/min",
                "-" if client.max_concurrent is None else str(client.max_concurrent),
                show_bytes(client.max_bytes),
                client.key_sha256[:8],
                tenants.get(name, "-"),
            )
            for name, client in clients.items()
        ],
    )


@keys.command("revoke", epilog="Example: thinkonce keys revoke alice")
def revoke(name: Name, config: Config = None) -> None:
    """Forget a client: its key is worth nothing from the next SIGHUP of each server on."""
    path = _path(config)
    document = _read(path)
    clients = _clients(document)
    if name not in clients:
        known = ", ".join(clients) or "there is none"
        raise ConfigError("name", name, f"a client's name: {known}")
    del clients[name]
    if not clients:
        del document["clients"]
    _write(path, document)
    print(f"{name} is gone from {path}; SIGHUP makes servers read it")


def _tenants(settings: Settings) -> dict[str, str]:
    """By name, as entries, `stats` and the access log show it; none before there is a secret."""
    # Not at the top: the other commands need nothing of a store.
    from thinkonce.cli.store_view import file_of, secret_of
    from thinkonce.engine.tenants import Tenants
    from thinkonce.request.key import Keyer
    from thinkonce.request.secret import load_secret

    path = file_of(settings.store)
    if path is not None:
        secret = secret_of(settings.store, path)
    else:
        secret = load_secret(settings.store.secret) if settings.store.secret else None
    if secret is None:
        return {}
    known = Tenants(Keyer(secret), settings.groups, settings.clients).names()
    return {name: tenant for tenant, names in known.items() for name in names}


def _warn(settings: Settings) -> None:
    """Clients that have sent the provider's key until now are strangers from the next reload on."""
    if not any(row.api_key_env for row in settings.upstreams.values()):
        print(
            "note: no [upstreams.NAME] has api_key_env, so the gateway has no provider's key of "
            "its own; from its next reload on it knows clients only, and a provider's key gets 401",
            file=sys.stderr,
        )


# -- the file ---------------------------------------------------------------------------------


def _path(config: Path | None) -> Path:
    # What a link points to is changed, not the link. A path that was named and is not there is
    # rather misspelt than wished for.
    if config is not None and not config.exists():
        raise ConfigError("--config", str(config), "a TOML file that exists")
    return (config or Path(FILE_NAME)).resolve()


def _read(path: Path) -> TOMLDocument:
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        return tomlkit.parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return tomlkit.document()
    except (OSError, ValueError, TOMLKitError) as error:
        raise ConfigError("--config", str(path), f"a readable TOML file ({error})") from None


def _clients(document: TOMLDocument) -> dict[str, Any]:
    clients: Any = document.get("clients", {})
    if not isinstance(clients, dict):
        raise ConfigError("clients", str(clients), "a table: [clients.NAME]")
    return clients


def _append(document: TOMLDocument, name: str, row: dict[str, Any]) -> None:
    import tomlkit

    if "clients" not in document:
        document["clients"] = tomlkit.table(is_super_table=True)
    table = tomlkit.table()
    table.update(row)
    _clients(document)[name] = table


def _write(path: Path, document: TOMLDocument) -> Settings:
    """Put the file in place in one step, once it is known to load, and give what it says.

    Raises ConfigError.
    """
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(document.as_string())
            file.flush()
            os.fsync(file.fileno())
        settings = Sources(config=Path(draft)).load()
        if path.exists():
            _belong(Path(draft), path)
        Path(draft).replace(path)
    finally:
        Path(draft).unlink(missing_ok=True)
    return settings


def _belong(draft: Path, path: Path) -> None:
    """Give `draft` the owner and the mode of `path`: the gateway must go on reading it."""
    was, made = path.stat(), draft.stat()
    if (was.st_uid, was.st_gid) != (made.st_uid, made.st_gid):
        try:
            os.chown(draft, was.st_uid, was.st_gid)
        except PermissionError:
            accepts = f"a file of this user's own; run it as the file's owner ({was.st_uid})"
            raise ConfigError("--config", str(path), accepts) from None
    draft.chmod(stat.S_IMODE(was.st_mode))
