"""What a model costs its user: the tables [prices.MODEL]."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from thinkonce.settings.section import NONE, Section, about

__all__ = ("Rates",)

MOST = 1e6
RATE = "US dollars per million tokens, 0 to 1000000"


def rate(what: str, more: str = "") -> Meta:
    return about(what, RATE + more, least=0, most=MOST)


class Rates(Section, frozen=True):
    """What a model costs, in place of the list that comes with the package.

    A name with a dot is quoted: `[prices."gpt-5.5"]`.
    """

    input: Annotated[float, rate("Tokens of the prompt.")]
    output: Annotated[float, rate("Tokens of the answer.")]
    cached_input: Annotated[
        float | None, rate("Tokens that the provider read from its own cache.", NONE)
    ] = None
    cache_write: Annotated[float | None, rate("Tokens that it wrote there.", NONE)] = None
    cache_write_1h: Annotated[
        float | None, rate("Of these, tokens that stay for an hour.", NONE)
    ] = None
