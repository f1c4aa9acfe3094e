"""`export` and `import`: entries to a file and back, from a store or a running gateway."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from thinkonce.cli.gateway_view import GatewayView
from thinkonce.cli.line_file import count_lines
from thinkonce.cli.open_view import chosen_settings
from thinkonce.cli.options import AsJson, Config, StoreUrl, Url
from thinkonce.cli.output import print_json, reporting
from thinkonce.cli.whose import ApiKeyEnv, Group, Tenant, whose_headers
from thinkonce.errors import ConfigError

__all__ = ("register",)

Report = Callable[[str, float | None], None]
Source = Callable[[bytes], Iterator[bytes]]  # key to begin behind -> lines of an export
# (file, headers that say whose they shall be, whose they are) -> rows
Sink = Callable[[Path, dict[str, str], list[str]], Iterator[dict[str, Any]]]


def register(app: typer.Typer) -> None:
    epilog = "Example: thinkonce export answers.jsonl --url http://127.0.0.1:8000"
    app.command("export", epilog=epilog)(export)
    epilog = "Example: thinkonce import answers.jsonl --store sqlite:///new.db"
    app.command("import", epilog=epilog)(import_)


def export(
    file: Annotated[Path, typer.Argument(help="Written anew, once it is complete.")],
    tenant: Tenant = None,
    store: StoreUrl = None,
    url: Url = None,
    config: Config = None,
    as_json: AsJson = False,
) -> int:
    """Write the entries of a store or a running gateway to a file.

    Whoever reads the file reads answers and what was asked. Until it is complete it is called
    FILE.part; after an interruption the same command goes on from there.
    """
    # Not at the top: most commands move nothing.
    from thinkonce.cli.export_file import write

    if not file.name or file.is_dir():
        raise ConfigError("FILE", str(file), "a file's path; this is a folder")
    part = file.with_name(file.name + ".part")
    with _source(store, url, config, tenant) as source, reporting("exporting") as report:
        try:
            counts = write(part, source, report, tenant)
        except KeyboardInterrupt:
            print(f"stopped; the same command goes on with {part}", file=sys.stderr)
            return 1
    part.replace(file)
    print(f"{file} is plain text: answers and what was asked", file=sys.stderr)
    if as_json:
        print_json({"file": str(file), **counts})
    else:
        print(
            f"{counts['entries']} entries written to {file}; left out: {counts['expired']} "
            f"expired, {counts['not_movable']} that only memory can hold"
        )
    return 0


def import_(
    file: Annotated[Path, typer.Argument(help="What `export` wrote.")],
    api_key_env: ApiKeyEnv = None,
    tenant: Tenant = None,
    group: Group = None,
    from_tenant: Annotated[
        list[str] | None,
        typer.Option(help="Take only this tenant's entries of the file; may be repeated."),
    ] = None,
    store: StoreUrl = None,
    url: Url = None,
    config: Config = None,
    as_json: AsJson = False,
) -> int:
    """Read what `export` wrote into a store or a running gateway.

    Entries keep their tenant where both installations hold the same secret; else say whose they
    shall be, and whose they are where the file holds those of several. What is there already
    stays, so after an interruption the same command goes on.
    Exits 1 if a line failed or the file is cut off.
    """
    headers = whose_headers(api_key_env, tenant, group)
    total = count_lines(file)
    from thinkonce.cli.import_file import check_one_tenant
    from thinkonce.insight.moving import COUNTS

    if headers and not from_tenant:
        check_one_tenant(file)
    told: dict[str, Any] = {**dict.fromkeys(COUNTS, 0), "complete": False}
    stopped = False
    with _sink(store, url, config) as sink, reporting("importing") as report:
        try:
            for row in sink(file, headers, from_tenant or []):
                _note(row, told, report, total)
        except KeyboardInterrupt:
            stopped = True
    return _tell(told, file, stopped=stopped, as_json=as_json)


def _note(row: dict[str, Any], told: dict[str, Any], report: Report, total: int) -> None:
    if "error" in row:
        print(f"line {row['line']}: {row['error']}", file=sys.stderr)
        return
    told.update({name: row[name] for name in told})
    done = sum(told.values())  # True is the last line
    report(f"{done} of {total} lines, {told['failed']} failed", min(1.0, done / max(total, 1)))


def _tell(told: dict[str, Any], file: Path, *, stopped: bool, as_json: bool) -> int:
    if as_json:
        print_json(told)
    else:
        print(
            f"{told['imported']} entries imported, {told['present']} there already, "
            f"{told['expired']} expired, {told['failed']} failed"
            + (f", {told['left_out']} of other tenants left out" if told["left_out"] else "")
        )
    if stopped:
        print(f"stopped; the same command goes on with {file}", file=sys.stderr)
    elif not told["complete"]:
        print(f"{file} is cut off: its last line is missing", file=sys.stderr)
    return 0 if told["complete"] and not told["failed"] else 1


@contextmanager
def _source(
    store: str | None, url: str | None, config: Path | None, tenant: str | None
) -> Iterator[Source]:
    settings = chosen_settings(store, url, config)
    if url is not None:
        with GatewayView(url, settings.admin.token) as view:
            query = {} if tenant is None else {"tenant": tenant}
            yield lambda after: view.lines(
                "GET", "/cache/export?" + urlencode({**query, "after": after.hex()}), None, {}
            )
        return
    # Only here, because most commands open no store.
    from thinkonce.cli.store_shelf import opened_shelf
    from thinkonce.insight.moving import export_lines
    from thinkonce.selector import Selector

    with opened_shelf(settings) as shelf:
        yield lambda after: export_lines(shelf, Selector(tenant=tenant), after)


@contextmanager
def _sink(store: str | None, url: str | None, config: Path | None) -> Iterator[Sink]:
    settings = chosen_settings(store, url, config)
    from thinkonce.cli.import_file import into_gateway, into_store

    if url is not None:
        with GatewayView(url, settings.admin.token) as view:
            yield lambda file, headers, of: into_gateway(view, file, headers, of)
        return
    from thinkonce.cli.store_shelf import opened_shelf

    with opened_shelf(settings, fill=True) as shelf:
        yield lambda file, headers, of: into_store(shelf, settings, file, headers, of)
