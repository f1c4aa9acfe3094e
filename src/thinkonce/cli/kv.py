"""`kv`: look at the attention state that a model server keeps."""

from __future__ import annotations

import http.client
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
import typer

from thinkonce.cli.gateway_view import GatewayError, reason_in
from thinkonce.cli.later import NotBuilt
from thinkonce.cli.options import AsJson
from thinkonce.cli.output import print_json, print_pairs, print_table, show_bytes
from thinkonce.settings.check import check_upstream_url

__all__ = ("register",)

TIMEOUT_SECONDS = 30.0
DEFAULT_URL = "http://127.0.0.1:8001"
COLUMNS = ("TIER", "BLOCKS", "BYTES", "OF", "LOADED TOKENS", "EVICTED", "DROPPED", "DAMAGED")
Url = Annotated[
    str,
    typer.Option(help=f"A model server's address.  [default: {DEFAULT_URL}]", show_default=False),
]


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Attention state of a model server.")
    group.command("stats", epilog="Example: thinkonce kv stats")(stats)
    group.command("ls", epilog="Example: thinkonce kv ls", short_help="The tree (not built yet)")(
        ls
    )
    app.add_typer(group, name="kv", epilog="Example: thinkonce kv stats")


def stats(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """What is kept of prompts, where, and what it saved."""
    found = _asked(url)
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
            "tokens a block": found["chunk_tokens"],
            "a token takes": show_bytes(found["bytes_a_token"]),
            "computing a token": f"{found['prefill']['us_a_token']:,.0f} us",
            "loading one from disk": _loading(found["load"]),
            "policy": found["policy"],
        }
    )
    print()
    print_table(COLUMNS, list(_rows(found)))


def ls() -> None:
    """The prefix tree. Not built yet: exits 2."""
    raise NotBuilt("`kv ls` is not built yet in this version; `kv stats` is")


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


def _asked(url: str) -> dict[str, Any]:
    """What `/kv/stats` answers. Raises GatewayError."""
    check_upstream_url("--url", url)
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = kind(str(parts.hostname), parts.port, timeout=TIMEOUT_SECONDS)
    place = f"{parts.scheme}://{parts.netloc}"
    try:
        connection.request("GET", "/kv/stats")
        answer = connection.getresponse()
        raw = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise GatewayError(f"{place} cannot be reached") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise GatewayError(f"{place}/kv/stats answered {answer.status}: {reason_in(raw)}")
    try:
        found: dict[str, Any] = msgspec.json.decode(raw, type=dict[str, Any])
        found["reuse"]
    except (msgspec.DecodeError, KeyError):
        raise GatewayError(f"{place}/kv/stats: what answers is no thinkonce model server") from None
    return found
