"""`kv explain`: what of a request would be loaded, and why not more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from thinkonce.cli.model_view import MODEL_SERVER, ModelUrl, ModelView
from thinkonce.cli.options import AsJson, Config
from thinkonce.cli.output import print_json
from thinkonce.cli.whose import ApiKeyEnv, Tenant, whose_headers
from thinkonce.errors import ConfigError
from thinkonce.settings import Sources

__all__ = ("CAUSES", "WHY_EXACT", "kv_explain")

CAUSES = {
    "evicted": "the next block made room for others",
    "expired": "nobody used the next block for as long as it was to live",
    "purged": "the next block was purged",
    "no_room": "the next block was computed and found no room: requests under way held it",
    "bypass": "the request, or the model, does not read what is kept",
    "too_short": "no full block lies before the last token",
    "tail_not_stored": "what follows was the end of a prompt, which is always computed",
    "never_seen": "no such text is known",
    "slower_than_recompute": "the next block is on disk, and sooner computed than loaded",
    "load_error": "the next block could not be read from disk",
    "content": "it says something else than the nearest prompt that is known",
    "tokenizer_boundary": "the text is known, cut into other tokens",
    "salt": "the text is known under another {}",
    "fingerprint": "the text is known to another model: its {} differ",
    "other_tenant": "the text is another tenant's",
}
"""In words; `{}` stands for the fields that keep it apart."""

WHY_EXACT = {
    "not_worth": "more than half of it would be computed again",
    "known_exactly": "as much of it is known exactly",
    "too_short": "no marked part is long enough",
    "not_relocatable": "this model's keys cannot be turned to another place",
    "no_room": "memory has no room for a second sequence",
    "not_faithful": "the method is not served for this traffic",
}
"""Where a prompt with marked parts is read as any other."""


def kv_explain(
    file: Annotated[Path, typer.Argument(help="A request's body, or a line of a batch, as JSON.")],
    url: ModelUrl = MODEL_SERVER,
    api_key_env: ApiKeyEnv = None,
    tenant: Tenant = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """What of a request a model server would load, and why not more.

    Nothing is loaded or kept by asking. Say whose request it is; without that, that of clients who
    show no key.
    """
    headers = whose_headers(api_key_env, tenant, None)
    body = _body_in(file)
    with ModelView(url, Sources(config=config).load().admin.token) as view:
        told = view.why(body, headers)
    if as_json:
        print_json(told)
        return
    for number, each in enumerate(told["prompts"], start=1):
        if len(told["prompts"]) > 1:
            print(f"prompt {number}:")
        for line in _lines(each):
            print(line)


def _body_in(file: Path) -> bytes:
    try:
        raw = file.read_bytes()
        found = msgspec.json.decode(raw)
    except OSError as error:
        raise ConfigError("FILE", str(file), f"a readable file ({error.strerror})") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError("FILE", str(file), f"JSON ({error})") from None
    is_line = isinstance(found, dict) and isinstance(found.get("body"), dict)
    return msgspec.json.encode(found["body"]) if is_line else raw


def _lines(told: dict[str, Any]) -> Iterator[str]:
    memory, disk, missed = (told[f"{name}_tokens"] for name in ("memory", "disk", "missed"))
    loaded = f"{memory + disk:,} of {told['prompt_tokens']:,} tokens would be loaded"
    yield f"{loaded}, {disk:,} of these from disk"
    fields = " and ".join(told["fields"]) or "configuration"
    yield f"{missed:,} more could be: {CAUSES[told['cause']].format(fields)} ({told['cause']})"
    if told["ago"] is not None:
        by = f", by {told['policy']}" if told["policy"] else ""
        yield f"that was {told['ago']:,.0f} s ago{by}"
    if told.get("why_exact") is not None:
        yield f"marked parts are read exactly: {WHY_EXACT[told['why_exact']]}"
    if told.get("chunks"):
        yield f"marked parts, by {told['method']}, which is approximate:"
        yield from map(_chunk, told["chunks"])
    if told.get("fidelity") is not None:
        yield _fidelity(told["fidelity"])
    if told["difference"] is not None:
        yield from _difference(told["difference"])


def _fidelity(told: dict[str, Any]) -> str:
    steps = " -> ".join(told["steps"])
    served = f"served now: {told['setting']}, of {steps}"
    if told["agreement"] is None:
        return f"{served}; no audit of such prompts counts yet"
    most = "?" if told["kl_high"] is None else f"{told['kl_high']:.3f}"
    agreement = (
        f"agreement {told['agreement']:.1%} ({told['agreement_low']:.1%} to "
        f"{told['agreement_high']:.1%}, at least {told['bound_agreement']:.0%} wanted)"
    )
    divergence = (
        f"KL {told['kl']:.3f} ({told['kl_low']:.3f} to {most}, at most {told['bound_kl']:g} wanted)"
    )
    return f"{served}; {told['audits']} audits: {agreement}, {divergence}: {told['verdict']}"


def _chunk(told: dict[str, Any]) -> str:
    found = told["memory_tokens"] + told["disk_tokens"]
    name = told["document"] or "(no id)"
    moved = f"moved from {told['was']:,} to {told['start']:,}"
    why = "" if told["cause"] is None else f", the others: {told['cause']}"
    counts = f"{found:,} of {told['tokens']:,} tokens found{why}"
    return f"  {name}: {counts}, {moved}, {told['recomputed']:,} computed again"


def _difference(found: dict[str, Any]) -> Iterator[str]:
    names = [name for name in ("message", "character", "token") if found[name] is not None]
    yield "at " + ", ".join(f"{name} {found[name]}" for name in names)
    yield f"  known  {found['known']!r}"
    yield f"  asked  {found['asked']!r}"
