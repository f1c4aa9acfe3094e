"""The command `thinkonce`: its groups, and how every command ends.

Exit codes: 0 success, 1 failure, 2 bad usage or configuration. Failures print one line on stderr.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from thinkonce.cli import (
    audits,
    bench,
    doctor,
    encrypt,
    explain,
    keys,
    kv,
    later,
    look,
    model,
    move,
    plan,
    preload,
    purge,
    serve,
)
from thinkonce.errors import ConfigError, RequestError, ThinkOnceError
from thinkonce.version import __version__

__all__ = ("app", "main")

FAILED, MISUSED = 1, 2
# Module -> the extra of this package that installs it.
EXTRAS = {
    "aiohttp": "gateway",
    "cryptography": "encryption",
    "httptools": "gateway",
    "prometheus_client": "gateway",
    "tomlkit": "gateway",
    "uvicorn": "gateway",
    "gguf": "local",
    "jinja2": "local",
    "numpy": "local",
    "safetensors": "local",
    "torch": "local",
    "transformers": "local",
    "zstandard": "local",
}

app = typer.Typer(
    name="thinkonce",
    help="One cache for everything a language model computes.",
    epilog="Example: thinkonce serve --local",
    add_completion=False,
    pretty_exceptions_enable=False,  # they would print local variables: prompts, credentials
    rich_markup_mode=None,  # plain help: the same in a terminal, a pipe and docs/cli.md
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.callback(invoke_without_command=True)
def version_or_help(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    if version:
        typer.echo(f"thinkonce {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


for group in (
    serve,
    model,
    look,
    purge,
    audits,
    explain,
    preload,
    move,
    keys,
    encrypt,
    doctor,
    bench,
    plan,
    kv,
    later,
):
    group.register(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        result = app(serve.with_optional_model(given), prog_name="thinkonce", standalone_mode=False)
    except (ConfigError, RequestError, later.NotBuilt) as error:
        return _say(str(error), MISUSED)
    except ThinkOnceError as error:
        return _say(_with_cause(error), FAILED)
    except typer.Abort:
        return _say("stopped", FAILED)
    except typer.TyperException as error:
        return _say(_misused(error, given), MISUSED)
    except ModuleNotFoundError as error:
        return _say(_with_extra(error), FAILED)
    except (KeyboardInterrupt, BrokenPipeError):
        return FAILED
    if not isinstance(result, int):
        return 0
    return result if result in (0, FAILED, MISUSED) else FAILED


def _misused(error: typer.TyperException, given: Sequence[str]) -> str:
    """What was misused, with the value it got, which the parser's own sentence leaves out."""
    names = getattr(getattr(error, "param", None), "opts", ())
    said, found, accepts = error.message.partition("Input should be ")
    if said or not found:
        return error.format_message()
    accepts = accepts.partition(", unable to")[0]
    accepts = accepts if accepts.startswith("a ") else f"a number {accepts}"
    for place, word in enumerate(given):
        option, equals, value = word.partition("=")
        if option in names:
            got = value if equals else " ".join(given[place + 1 : place + 2])
            return str(ConfigError(option, got, accepts))
    return error.format_message()


def _say(line: str, code: int) -> int:
    print(f"thinkonce: {' '.join(line.split())}", file=sys.stderr)
    return code


def _with_extra(error: ModuleNotFoundError) -> str:
    extra = EXTRAS.get((error.name or "").split(".")[0])
    return f"{error}; pip install '/path/to/thinkonce[{extra}]' brings it" if extra else str(error)


def _with_cause(error: ThinkOnceError) -> str:
    return f"{error}: {error.__cause__}" if error.__cause__ else str(error)
