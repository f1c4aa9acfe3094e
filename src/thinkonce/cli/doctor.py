"""`doctor`: is everything here as it must be, and what to do where it is not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from thinkonce.cli.examine import Finding, Grade, machine, upstreams
from thinkonce.cli.options import AsJson, Config, StoreUrl
from thinkonce.cli.output import console, print_json
from thinkonce.errors import ConfigError, ThinkOnceError
from thinkonce.settings import Settings, Sources, data_folder
from thinkonce.settings.load import FILE_NAME

__all__ = ("register",)

MARKS = {Grade.GOOD: "ok  ", Grade.NOTE: "note", Grade.BAD: "FAIL"}


def register(app: typer.Typer) -> None:
    app.command("doctor", epilog="Example: thinkonce doctor --store sqlite:///answers.db")(doctor)


def doctor(
    store: StoreUrl = None,
    config: Config = None,
    compare: Annotated[
        str | None,
        typer.Option(help="A gateway or another store that should share this one's secret."),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Check settings, store, upstreams and models; say what to do.

    Exits 0 when nothing failed, 1 when something did, 2 when the configuration is unusable.
    """
    findings = [*machine()]
    try:
        settings = Sources(config=config, flags={"store.url": store}).load()
    except ConfigError as error:
        findings.append(Finding("configuration", Grade.BAD, str(error), "correct that setting"))
        _print(findings, as_json)
        return 2
    findings += _examined(settings, config, compare)
    _print(findings, as_json)
    return int(any(finding.grade is Grade.BAD for finding in findings))


def _examined(settings: Settings, config: Path | None, compare: str | None) -> list[Finding]:
    from thinkonce.cli.examine_kv import model_server
    from thinkonce.cli.examine_store import compared, secret, store_file

    source = config or Path(FILE_NAME)
    read = f"read {source}" if source.exists() else f"no {source}: defaults and environment"
    findings = [Finding("configuration", Grade.GOOD, read)]
    findings += _ready(settings)
    findings += store_file(settings.store)
    findings += secret(settings.store)
    if compare is not None:
        findings.append(compared(settings.store, compare, settings.admin.token))
    findings += upstreams(settings.upstreams)
    findings += model_server(settings)
    return findings


def _ready(settings: Settings) -> Iterator[Finding]:
    """What `serve` asks before it begins, and what works other than its writer may think."""
    from thinkonce.gateway.readiness import complaints, open_to_proxies, unreachable

    for name, wrong in complaints(settings, os.environ):
        if wrong is not None:
            yield Finding(name, Grade.BAD, str(wrong), "correct that setting")
    for name, other in unreachable(settings):
        says = f"it is never asked: {other}, declared before it, takes every model"
        todo = f"declare {name} first, or name its models in [upstreams.{name}] models"
        yield Finding(f"models of {name}", Grade.NOTE, says, todo)
    if line := open_to_proxies(settings):
        yield Finding("admin", Grade.NOTE, line, "THINKONCE_ADMIN_TOKEN, or [admin] token")
    yield from _embedder(settings)
    yield from _verifier(settings)
    keyless = [name for name, pool in settings.upstreams.items() if not pool.api_key_env]
    for name in keyless if settings.clients else ():
        says = "it is asked without a key: known clients' keys are the gateway's, not a provider's"
        todo = f"name its key in [upstreams.{name}] api_key_env, unless it needs none"
        yield Finding(f"key of {name}", Grade.NOTE, says, todo)


def _embedder(settings: Settings) -> Iterator[Finding]:
    """One behind a URL is asked; a gateway begins without it too."""
    wanted = settings.semantic.embedder
    if not settings.compares or not wanted.startswith(("http://", "https://")):
        return
    from thinkonce.meaning.embedders.embedder import open_embedder

    try:
        found = open_embedder(wanted, api_key=settings.semantic.embedder_key)
        try:
            found.embed(["a"])
        finally:
            found.close()
    except ThinkOnceError as error:
        todo = "correct [semantic] embedder or embedder_key, or start what answers there"
        yield Finding("embedder", Grade.BAD, f"it gives no vector: {error}", todo)
    else:
        yield Finding("embedder", Grade.GOOD, f"{wanted}: {found.dimensions} dimensions")


def _verifier(settings: Settings) -> Iterator[Finding]:
    if not settings.compares:
        return
    from thinkonce.meaning.verdict.verifier import INCLUDED, installed

    wanted = settings.semantic.verifier
    if wanted in INCLUDED and installed(wanted, data_folder(settings.data.dir)) is None:
        says = "no verifier is installed: only questions in the same plain words are answered"
        todo = 'name one in [semantic] verifier, or be content with that: verifier = "off"'
        yield Finding("semantic", Grade.NOTE, says, todo)


def _print(findings: list[Finding], as_json: bool) -> None:
    if as_json:
        print_json(findings)
        return
    out = console()
    for finding in findings:
        out.print(f"{MARKS[finding.grade]}  {finding.name:<16} {finding.says}", markup=False)
        if finding.todo:
            out.print(f"      {'':<16} -> {finding.todo}", markup=False)
