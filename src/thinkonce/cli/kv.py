"""`kv`: look at the attention state that a model server keeps."""

from __future__ import annotations

from typing import Any

import typer

from thinkonce.cli.kv_explain import kv_explain
from thinkonce.cli.kv_models import kv_drop, kv_models
from thinkonce.cli.kv_preload import kv_preload
from thinkonce.cli.kv_purge import kv_purge
from thinkonce.cli.kv_tree import kv_ls, kv_show
from thinkonce.cli.model_view import MODEL_SERVER, ModelUrl, ModelView
from thinkonce.cli.options import AsJson
from thinkonce.cli.output import print_json, print_pairs, print_table, show_bytes

__all__ = ("register",)

SETTINGS = ("SETTING", "IN FORCE", "ANSWERS", "AUDITS", "AGREEMENT", "KL", "VERDICT")
COLUMNS = ("TIER", "BLOCKS", "BYTES", "OF", "LOADED TOKENS", "EVICTED", "DROPPED", "DAMAGED")


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Attention state of a model server.")
    group.command("stats", epilog="Example: thinkonce kv stats")(stats)
    example = "thinkonce kv preload prompts.jsonl --api-key-env OPENAI_API_KEY"
    group.command("preload", epilog=f"Example: {example}")(kv_preload)
    example = "thinkonce kv explain request.json --api-key-env OPENAI_API_KEY"
    group.command("explain", epilog=f"Example: {example}")(kv_explain)
    group.command("ls", epilog="Example: thinkonce kv ls")(kv_ls)
    group.command("show", epilog="Example: thinkonce kv show 3f9a01c2")(kv_show)
    group.command("purge", epilog="Example: thinkonce kv purge --document doc-7")(kv_purge)
    group.command("models", epilog="Example: thinkonce kv models --kv-store kv-state")(kv_models)
    group.command("drop", epilog="Example: thinkonce kv drop --older-than 30d")(kv_drop)
    app.add_typer(group, name="kv", epilog="Example: thinkonce kv stats")


def stats(url: ModelUrl = MODEL_SERVER, as_json: AsJson = False) -> None:
    """What is kept of prompts, where, and what it saved."""
    with ModelView(url) as view:
        found = view.kept()
    if as_json:
        print_json(found)
        return
    if not found["reuse"]:
        print(f"nothing is kept of prompts: {found['why']}")
        return
    tokens, cached = found["prompt_tokens"], found["cached_tokens"]
    share = cached / tokens if tokens else 0.0
    print_pairs(
        {
            "prompts": f"{found['prompts']:,}",
            "prompt tokens": f"{tokens:,}",
            "of these loaded": f"{cached:,} ({share:.1%})",
            **_approximate(found),
            "tokens a block": found["chunk_tokens"],
            "a token takes": show_bytes(found["bytes_a_token"]),
            "computing a token": f"{found['prefill']['us_a_token']:,.0f} us",
            "loading one from disk": _loading(found["load"]),
            "policy": found["policy"],
        }
    )
    print()
    print_table(COLUMNS, list(_rows(found)))
    if (told := found.get("fidelity")) is not None and told["settings"]:
        _print_fidelity(told)


def _approximate(found: dict[str, Any]) -> dict[str, str]:
    """By methods that are not exact, where there were any."""
    others = {name: count for name, count in found.get("by_method", {}).items() if name != "exact"}
    return {f"by {name}, approximately": f"{count:,}" for name, count in others.items()}


def _print_fidelity(told: dict[str, Any]) -> None:
    """What audits say of approximate reuse, for all traffic together."""
    bounds = told["bounds"]
    print()
    print(
        f"approximate reuse has to keep an agreement of {bounds['agreement']:.0%} and a KL of "
        f"{bounds['kl']:g} nats"
    )
    rows = [(name, *_measured(numbers)) for name, numbers in told["settings"].items()]
    print_table(SETTINGS, rows)


def _measured(numbers: dict[str, Any]) -> tuple[str, ...]:
    counts = (f"{numbers.get('in_force', 0):,}", f"{numbers['answers']:,}")
    if "audits" not in numbers:
        return (*counts, "-", "-", "-", "-")
    low, high = numbers["agreement_low"], numbers["agreement_high"]
    agreement = f"{numbers['agreement']:.1%} ({low:.1%} to {high:.1%})"
    most = "?" if numbers["kl_high"] is None else f"{numbers['kl_high']:.3f}"
    kl = f"{numbers['kl']:.3f} ({numbers['kl_low']:.3f} to {most})"
    return (*counts, f"{numbers['audits']:,}", agreement, kl, numbers["verdict"])


def _loading(measured: dict[str, Any]) -> str:
    return f"{measured['us_a_token']:,.0f} us" if measured["count"] else "-"


def _rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    disk = found["disk"]
    on_disk = 0 if disk is None else disk["tokens_loaded"]
    memory = found["memory"] | {
        "tokens_loaded": found["cached_tokens"] - on_disk,
        "evicted": found["blocks_evicted"],
        "dropped": found["blocks_refused"],
        "damaged": found["collisions"],
    }
    tiers = {"memory": memory} | ({} if disk is None else {"disk": disk})
    return [(name, *_cells(tier)) for name, tier in tiers.items()]


def _cells(tier: dict[str, Any]) -> tuple[str, ...]:
    counts = ("tokens_loaded", "evicted", "dropped", "damaged")
    return (
        f"{tier['blocks']:,}",
        show_bytes(tier["bytes"]),
        show_bytes(tier["max_bytes"]),
        *(f"{tier[name]:,}" for name in counts),
    )
