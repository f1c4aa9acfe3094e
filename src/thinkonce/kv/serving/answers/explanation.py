"""What is told of one prompt: what of it was loaded, at what cost, and why not more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

import msgspec

from thinkonce.kv.prefix.attended import Attended
from thinkonce.kv.prefix.causes import Cause, Chunk, Costs, Explained, Fidelity, WhyExact
from thinkonce.kv.serving.answers.difference import Difference, compared

__all__ = ("Explanation", "explanation")


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """`cause` is that of the first block which was not loaded; `docs/kv.md` has them all.

    `missed_tokens` of the prompt could have been loaded besides, had they been there. `ago`:
    seconds since that block went, where it is known to have gone, and the `policy` that chose it.
    `fields`: what keeps it apart from who has it, for `salt` and `fingerprint`. `seconds`:
    `lookup`, `load` and `compute`. `method`: how the prompt was read; `chunks`: its parts that were
    reused elsewhere than at its beginning; `why_exact`: where marked parts were not. `fidelity`:
    what audits say of the method. `attended`: where an answer does not attend to all of the prompt.
    """

    prompt_tokens: int
    memory_tokens: int
    disk_tokens: int
    missed_tokens: int
    cause: Cause
    ago: float | None = None
    policy: str | None = None
    fields: tuple[str, ...] = ()
    difference: Difference | None = None
    seconds: Costs = Costs()
    method: str = "exact"
    chunks: tuple[Chunk, ...] = ()
    why_exact: WhyExact | None = None
    fidelity: Fidelity | None = None
    attended: Attended | None = None


def explanation(
    tokenizer: Any, prompt: Sequence[int], explained: Explained, contents: Sequence[str] = ()
) -> Explanation:
    """`contents`: the texts of the prompt's messages, where it has any.

    Only here, with the texts, is it told apart whether contents differ or the cut into tokens.
    """
    missing = explained.missing
    cause, difference = missing.cause, None
    if missing.departure is not None:
        differs, difference = compared(tokenizer, prompt, missing.departure, contents)
        if not differs:
            cause = "tail_not_stored" if missing.departure.in_tail else "tokenizer_boundary"
        if cause == "tail_not_stored":
            difference = None
    return Explanation(
        prompt_tokens=explained.prompt_tokens,
        memory_tokens=explained.memory_tokens,
        disk_tokens=explained.disk_tokens,
        missed_tokens=explained.missed_tokens,
        cause=cause,
        ago=None if missing.ago is None else round(missing.ago, 3),
        policy=missing.policy or None,
        fields=missing.fields,
        difference=difference,
        seconds=Costs(*(round(seconds, 6) for seconds in astuple(explained.costs))),
        method=explained.method,
        chunks=explained.chunks,
        why_exact=explained.why_exact,
        fidelity=explained.fidelity,
        attended=explained.attended,
    )
