"""`serve` and `serve-model`: the two servers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn
from urllib.parse import urlsplit

import typer

from thinkonce.cli.options import Config, StoreUrl
from thinkonce.cli.output import reporting
from thinkonce.errors import MISSING, ConfigError
from thinkonce.settings import Local, Settings, Sources, Upstream
from thinkonce.settings.check import check_upstream_url
from thinkonce.settings.load import FILE_NAME, flag_of
from thinkonce.tiers.keyring import NO_KEYS, keys_of

__all__ = (
    "GATEWAYS_FILE",
    "MODEL_PORT",
    "pools_of",
    "register",
    "to_read_again",
    "with_optional_model",
)

MODEL_PORT = 8001
GATEWAYS_FILE = "THINKONCE__CONFIG"
ORPHAN_SECONDS = 1.0  # a model whose gateway was killed answers nobody who waits
Host = Annotated[str | None, typer.Option(help="Address to listen on.  [default: 127.0.0.1]")]


def register(app: typer.Typer) -> None:
    app.command(
        "serve",
        epilog="Example: thinkonce serve --upstream https://api.openai.com/v1 --port 8000",
    )(serve)
    app.command("serve-model", epilog="Example: thinkonce serve-model --port 8001")(serve_model)


def with_optional_model(arguments: Sequence[str]) -> list[str]:
    """`--local` takes a model's name or nothing; the parser knows only options that take one."""
    given = list(arguments)
    for at, word in enumerate(given):
        followed = at + 1 < len(given) and not given[at + 1].startswith("-")
        if word == "--local" and not followed:
            given[at] = "--local="
    return given


def serve(
    host: Host = None,
    port: Annotated[int | None, typer.Option(help="Port; 0: any.  [default: 8000]")] = None,
    upstream: Annotated[
        list[str] | None,
        typer.Option(help="A provider's base URL, with or without /v1; may be repeated."),
    ] = None,
    local: Annotated[
        str | None,
        typer.Option(metavar="[MODEL]", help="Start a local model and use it."),
    ] = None,
    store: StoreUrl = None,
    config: Config = None,
    workers: Annotated[int | None, typer.Option(help="Processes that serve.")] = None,
) -> int:
    """The caching gateway."""
    sources = Sources(
        config=config,
        flags={
            "gateway.host": host,
            "gateway.port": port,
            "gateway.workers": workers,
            "store.url": store,
            "local.enabled": None if local is None else True,
            "local.model": local or None,
            "upstreams": pools_of(upstream) if upstream else None,
        },
    )
    settings = sources.load()
    if not settings.upstreams and not settings.local.enabled:
        accepts = "--upstream URL for a provider, or --local for a model on this machine"
        raise ConfigError("a model to ask", MISSING, accepts)
    _share_data_folder(settings)
    if settings.local.enabled:
        _check_local("[local] model" if local is None else "--local", settings.local)
    from thinkonce.gateway.serve import run
    from thinkonce.web.notify import notifying
    from thinkonce.web.server import print_line

    with _told_to_children(config):
        return run(settings, to_read_again(sources), notifying(print_line))


def serve_model(
    model: Annotated[
        str | None, typer.Argument(help="A packaged model's name, or a directory.")
    ] = None,
    host: Host = None,
    port: Annotated[int | None, typer.Option(help="Port; 0: any.  [default: 8001]")] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="Numbers: float32, bfloat16, float16.  [default: those of the weights]"),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, or cuda with a GPU.  [default: cpu]")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads a forward pass uses; 0: all cores.  [default: 0]")
    ] = None,
    queue: Annotated[
        int | None, typer.Option(help="Requests that may wait.  [default: 16]")
    ] = None,
    kv_memory: Annotated[
        str | None,
        typer.Option(help="Most memory for attention state of prompts.  [default: 1GiB]"),
    ] = None,
    chunk: Annotated[
        int | None,
        typer.Option(help="Tokens of a prompt in a block, 64 to 2048.  [default: 128]"),
    ] = None,
    codec: Annotated[
        str | None,
        typer.Option(help="How it is kept: raw, or int8, which is not exact.  [default: raw]"),
    ] = None,
    kv_store: Annotated[
        Path | None, typer.Option(help="Folder to keep it in across restarts.")
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="No line a request; the others say `model` first.")
    ] = False,
    config: Config = None,
) -> int:
    """An OpenAI-compatible server for one local model."""
    flags = {
        "local.model": model,
        "local.dtype": dtype,
        "local.device": device,
        "local.threads": threads,
        "local.queue": queue,
        "kv.memory": kv_memory,
        "kv.chunk": chunk,
        "kv.codec": codec,
        "kv.store": None if kv_store is None else str(kv_store),
    }
    if config is None and (gateways := os.environ.get(GATEWAYS_FILE)):
        config = Path(gateways)
    sources = Sources(config=config, flags=flags)
    settings = sources.load()
    _share_data_folder(settings)
    with _called_as_typed(flags):
        address = (host or "127.0.0.1", MODEL_PORT if port is None else port)
        return _run_model(settings, to_read_again(sources), *address, quiet)


def _run_model(
    settings: Settings, read: Callable[[], Settings], host: str, port: int, quiet: bool
) -> int:
    from thinkonce.web.lifeline import end_with_parent

    end_with_parent(ORPHAN_SECONDS)
    # OpenMP reads it once, when torch is loaded. By default its threads spin for each other so long
    # that a prompt takes up to 20 times its time where anything else takes a core of theirs; where
    # nothing does, threads that sleep at once take a quarter more. So they spin, briefly.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    from thinkonce.gateway.workers.lines import unhindered
    from thinkonce.kv.serving.clients import Access
    from thinkonce.kv.serving.server import run
    from thinkonce.web.log_lines import log_to_stderr
    from thinkonce.web.notify import notifying
    from thinkonce.web.server import print_line

    # Quiet ones write to the stderr of the gateway that started them.
    with unhindered(alone=not quiet), ExitStack() as bar:
        log_to_stderr(settings.log.level, "model" if quiet else "", settings.log.format)
        report = bar.enter_context(reporting("loading the model"))
        tell = notifying(print_line)

        def access(settings: Settings) -> Access:
            return Access(settings.clients, settings.admin.token)

        def say(line: str) -> None:
            bar.close()  # the bar goes before the line that says it is done
            tell(line)

        return run(
            settings.local.model,
            host=host,
            port=port,
            dtype=settings.local.dtype,
            device=settings.local.device,
            threads=settings.local.threads,
            max_waiting=settings.local.queue,
            max_waiting_tokens=settings.local.queue_tokens,
            deadline=settings.local.deadline,
            kv=settings.kv,
            keys=keys_of(settings.store) if settings.kv.store else NO_KEYS,
            gateway_secret=settings.kv.gateway_secret,
            access=access(settings),
            read_access=lambda: access(read()),
            access_log=not quiet,
            progress=report,
            say=say,
        )


def pools_of(urls: Sequence[str]) -> dict[str, Upstream]:
    """One pool a URL, named after all that tells servers apart: nobody declared them equivalent.

    The name is the pool's identity in keys, so two paths of one host must not share it. Raises
    ConfigError for a URL that is none, or one given twice.
    """
    pools: dict[str, Upstream] = {}
    for url in urls:
        check_upstream_url("--upstream", url)
        parts = urlsplit(url)
        host, path = parts.netloc.rpartition("@")[2].lower(), parts.path.rstrip("/")
        scheme = "" if parts.scheme == "https" else f"{parts.scheme}://"
        name = scheme + host + path.removesuffix("/v1")
        if any(url in pool.urls for pool in pools.values()):
            raise ConfigError("--upstream", url, "each URL once")
        while name in pools:
            name += "+"
        pools[name] = Upstream(urls=[url])
    return pools


def to_read_again(sources: Sources) -> Callable[[], Settings]:
    """For a reload: a file that is gone by then is a mistake, not a wish for the defaults. So is a
    pipe, which is empty the second time: it would let in whoever asks. Raises ConfigError then.
    """
    if sources.config is not None and not sources.config.is_file():
        return partial(_read_once, sources.config)
    found = sources.config is None and Path(FILE_NAME).exists()
    return (replace(sources, config=Path(FILE_NAME)) if found else sources).load


def _read_once(config: Path) -> NoReturn:
    raise ConfigError("--config", str(config), "a file, where it is read again; a pipe is empty")


def _check_local(written: str, local: Local) -> None:
    """Say at once what the model's server would say once it has loaded its libraries."""
    from thinkonce.cli.examine import Grade
    from thinkonce.cli.examine_model import HOW, lacking, models

    if needed := lacking():
        raise ModuleNotFoundError(f"a local model needs {needed}; {HOW} brings it")
    for found in models(local):
        if found.grade is Grade.BAD:
            then = f": {found.todo}" if found.todo.startswith("thinkonce") else ""
            accepts = f"a model that is here ({found.says}{then})"
            raise ConfigError(written, local.model, accepts)


@contextmanager
def _called_as_typed(flags: Mapping[str, object]) -> Iterator[None]:
    """What fails once the model is loaded names the setting; who typed a flag is told that too."""
    try:
        yield
    except ConfigError as error:
        for path in (path for path, value in flags.items() if value is not None):
            section, name = path.split(".")
            if error.setting in (f"[{section}] {name}", name):
                typed = "MODEL" if path == "local.model" else flag_of(path)
                both = f"{typed} ([{section}] {name})"
                raise ConfigError(both, error.got, error.accepts) from error.__cause__
        raise


@contextmanager
def _told_to_children(config: Path | None) -> Iterator[None]:
    """The model's server reads the file that the gateway was given: who its clients are, and its
    administrator's token. Without this it would read any `thinkonce.toml` where both were started.
    A pipe can be read once, so beside one it reads nothing: what [kv] says is told in any case.
    """
    if config is None:
        yield
        return
    os.environ[GATEWAYS_FILE] = str(config.resolve()) if config.is_file() else os.devnull
    try:
        yield
    finally:
        del os.environ[GATEWAYS_FILE]


def _share_data_folder(settings: Settings) -> None:
    # Child processes and the packaged models look for the folder there.
    if settings.data.dir:
        os.environ["THINKONCE_DATA_DIR"] = settings.data.dir
