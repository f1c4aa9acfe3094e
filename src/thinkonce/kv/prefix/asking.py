"""One prompt that is asked about, from the request to the tiers: what, for whom, on which terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from thinkonce.kv.prefix.owner import NOBODY, Owner
from thinkonce.kv.prefix.prompt import Prompt
from thinkonce.kv.prefix.terms import USUAL, Terms

__all__ = ("Asking",)


@dataclass(frozen=True, slots=True)
class Asking:
    """`owner`: whose attention state may be used, and whose it becomes, on which `terms`.
    `is_ahead`: for requests that are to come; then the prompt's full blocks alone are read, and
    it counts as nobody's.
    """

    prompt: Prompt
    owner: Owner = NOBODY
    terms: Terms = USUAL
    is_ahead: bool = False

    @classmethod
    def of(cls, prompt: Sequence[int], owner: Owner = NOBODY, terms: Terms = USUAL) -> Asking:
        """Bare ids are a prompt without spans."""
        return cls(Prompt.of(prompt), owner, terms)
