"""Writes the pages of docs/ that the program itself knows: `make docs`.

    cli.md            from every command's --help
    configuration.md  from the settings' definitions
    reasons.md        from the enums of outcomes and reasons
    errors.md         from the tree of errors
    metrics.md        from the metrics' definitions
    files.md          from the first sentence of every module
    benchmarks.md     from benchmarks/results/*.json, with its charts

A test compares what this would write with what is committed.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path
from typing import Any

import msgspec

import thinkonce.errors
import thinkonce.insight.other_words as in_words
import thinkonce.outcome
from thinkonce.cli.output import show_bytes, show_seconds
from thinkonce.cli.reference import command_help
from thinkonce.gateway.metrics import FAMILIES, PREFIX
from thinkonce.kv.serving import metrics as model_metrics
from thinkonce.settings.load import TABLES, env_name, sections
from thinkonce.settings.read import Field, fields_of
from thinkonce.settings.sections import Section, Settings, default_classes

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "benchmarks"))

HEAD = "<!-- Written by `make docs`; edit the program instead. -->\n"


def pages() -> dict[str, str]:
    """File name under docs/ -> its whole text."""
    from report import benchmark_pages  # benchmarks/report.py

    return {
        "cli.md": HEAD + "".join(cli()),
        "configuration.md": HEAD + "".join(configuration()),
        "reasons.md": HEAD + "".join(reasons()),
        "errors.md": HEAD + "".join(errors()),
        "metrics.md": HEAD + "".join(metrics()),
        "files.md": HEAD + "".join(files()),
        **benchmark_pages(HEAD),
    }


def cli() -> Iterator[str]:
    yield "# Command line\n\nExit codes: 0 success, 1 failure, 2 bad usage or configuration.\n"
    for name, text in command_help():
        yield f"\n## {name}\n\n```text\n{text.rstrip()}\n```\n"


# What to ask of the metrics, and how.
QUESTIONS = {
    "share of look-ups that the cache answered": (
        'sum(rate(thinkonce_requests_total{outcome=~"hit|stale|coalesced"}[5m])) / '
        'sum(rate(thinkonce_requests_total{outcome=~"hit|stale|coalesced|miss"}[5m]))'
    ),
    "dollars saved in a day": "increase(thinkonce_saved_usd_total[1d])",
    "how long the slowest 1 % of hits take, in seconds": (
        "histogram_quantile(0.99, sum by (le) "
        '(rate(thinkonce_request_seconds_bucket{outcome="hit"}[5m])))'
    ),
    "servers that are left alone now": "thinkonce_upstream_open > 0 or thinkonce_upstream_down > 0",
    "whether the store is too slow, or broken": (
        "rate(thinkonce_store_dropped_total[5m]) > 0 or rate(thinkonce_tier_errors_total[5m]) > 0"
    ),
    "refusals by the gateway": 'sum by (status) (rate(thinkonce_refused_total{by="gateway"}[5m]))',
}


def metrics() -> Iterator[str]:
    yield """# Metrics

`GET /metrics` tells these in Prometheus' text form, or as OpenMetrics where the header `Accept`
asks for it. Workers' numbers are summed. Counters begin at zero when the gateway starts, but for
`thinkonce_saved_*`: with a store they go on where they were, and count for every process that
shares it. Labels whose values clients choose are bounded: a model that is not known is `other`.
What was saved by model, tenant, namespace, tag and hour is told by `GET /cache/stats` and
`thinkonce stats`.

| metric | type | labels | |
|---|---|---|---|
"""
    for family in FAMILIES:
        labels = ", ".join(f"`{label}`" for label in family.labels)
        yield f"| `{PREFIX}{family.name}` | {family.kind} | {labels} | {cell(family.about)} |\n"
    yield "\nHistograms come as `_bucket`, `_sum` and `_count`.\n\n## What to ask\n"
    for what, query in QUESTIONS.items():
        yield f"\n{what[0].upper()}{what[1:]}:\n\n```promql\n{query}\n```\n"
    yield """
## The model server

`GET /metrics` of `thinkonce serve-model` tells these; `tier` is `memory` or `disk`.

| metric | type | labels | |
|---|---|---|---|
"""
    for name, kind, label, about in model_metrics.FAMILIES:
        labels = f"`{label}`" if label else ""
        yield f"| `{PREFIX}{name}` | {kind} | {labels} | {cell(about)} |\n"


def files() -> Iterator[str]:
    """Folder by folder, the first paragraph of each module's docstring."""
    source = DOCS.parent / "src" / "thinkonce"
    yield "# Every file in one sentence\n"
    folders = sorted(path.parent for path in source.rglob("__init__.py"))
    for folder in folders:
        name = folder.relative_to(source.parent).as_posix()
        yield f"\n## {name}/\n\n| file | |\n|---|---|\n"
        for file in sorted(folder.glob("[!_]*.py")):
            text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
            if text:
                first = " ".join(text.split("\n\n")[0].split()).replace("|", "\\|")
                yield f"| `{file.name}` | {first} |\n"


# -- configuration ----------------------------------------------------------------------------


def configuration() -> Iterator[str]:
    yield """# Configuration

Code wins over flags, flags over the environment, the environment over `thinkonce.toml` (in the
working directory, or named by `--config`), and that over the defaults below. A setting nobody
knows is an error. Sizes are written as `256MiB`, times as seconds or `5m`, `1h`, `24h`; `"none"`
takes a bound away. Lists are separated by commas in the environment.
"""
    groups = fields_of(Settings)["groups"]
    for name, kind in sections().items():
        yield f"\n## [{name}]\n\n{cleandoc(kind.__doc__ or '')}\n\n"
        yield from table(kind, lambda field, name=name: env_name(name, field))
    for name, kind in TABLES.items():
        yield f"\n## [{name}.NAME]\n\n{cleandoc(kind.__doc__ or '')} TOML only.\n\n"
        yield from table(kind, None)
    yield "\nThe classes that exist unless redefined:\n\n| name | ttl | priority |\n|---|---|---|\n"
    for name, row in default_classes().items():
        yield f"| `{name}` | {show_seconds(row.ttl)} | {row.priority} |\n"
    yield f"\n## [groups]\n\n{groups.doc} It takes {groups.accepts}. TOML only.\n"


def table(kind: type[Section], environment: Any) -> Iterator[str]:
    defaults = {field.name: field for field in msgspec.structs.fields(kind)}
    yield "| setting | default | accepts | |\n|---|---|---|---|\n"
    for field in fields_of(kind).values():
        default = shown(field, defaults[field.name])
        also = f"<br>`{environment(field.name)}`" if environment else ""
        yield f"| `{field.name}`{also} | {default} | {cell(field.accepts)} | {cell(field.doc)} |\n"


def shown(field: Field, declared: msgspec.structs.FieldInfo) -> str:
    if declared.required:
        return "required"
    value = declared.default
    if value is msgspec.NODEFAULT:
        value = declared.default_factory()
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if field.unit == "bytes":
        return show_bytes(value)
    if field.unit and isinstance(value, float):
        return show_seconds(value)
    if isinstance(value, list):
        return ", ".join(f"`{item}`" for item in value) or "empty"
    return f"`{value}`" if value != "" else "empty"


def cell(text: str) -> str:
    return text.replace("|", "\\|")


# -- the vocabulary -----------------------------------------------------------------------------


def reasons() -> Iterator[str]:
    module = thinkonce.outcome
    yield f"# Outcomes and reasons\n\n{module.__doc__}\n"
    source = Path(module.__file__).read_text(encoding="utf-8")
    lines = source.splitlines()
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            yield f"\n## {node.name}\n\n{ast.get_docstring(node)}\n\n"
            yield "| word | meaning |\n|---|---|\n"
            for member in node.body:
                if isinstance(member, ast.Assign) and isinstance(member.value, ast.Constant):
                    meaning = lines[member.lineno - 1].partition("#")[2].strip()
                    yield f"| `{member.value.value}` | {cell(meaning)} |\n"
    yield from other_words()


def other_words() -> Iterator[str]:
    yield (
        "\n## Questions in other words\n\nWhy there was no hit in other words: `in_other_words` "
        "of a function's `explain`, `in other words` of `thinkonce explain`, `compared` of the "
        "statistics, and the label `why` of the metrics.\n"
    )
    for title, words in (
        ("Not compared", in_words.NOT_COMPARED),
        ("Nothing to compare with", in_words.NOTHING_FOUND),
        ("A stored question does not serve", in_words.REFUSED),
        ("What a guard saw", in_words.VETOES),
    ):
        yield f"\n### {title}\n\n| word | meaning |\n|---|---|\n"
        yield from (f"| `{word}` | {cell(meaning)} |\n" for word, meaning in words.items())


def errors() -> Iterator[str]:
    module = thinkonce.errors
    first, _, tree = (module.__doc__ or "").partition("\n")
    yield f"# Errors\n\n{first}\n\n```text\n{tree.strip()}\n```\n"
    for name in module.__all__:
        error = getattr(module, name)
        if not isinstance(error, type):  # a value that an error may hold
            continue
        bases = ", ".join(f"`{base.__name__}`" for base in error.__bases__)
        yield f"\n## {name}\n\n{cleandoc(error.__doc__ or '')} Subclass of {bases}.\n"


def main() -> None:
    for name, text in pages().items():
        path = DOCS / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
