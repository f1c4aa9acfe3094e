"""What a model costs its user: the tables [prices.MODEL]."""

from __future__ import annotations

from typing import Annotated

from thinkonce.settings.section import NONE, Section, about

__all__ = ("Rates",)

MOST = 1e6
_RATE = "US dollars per million tokens, 0 to 1000000"


class Rates(Section, frozen=True):
    """What a model costs, in place of the list that comes with the package.

    A name with a dot is quoted: `[prices."gpt-5.5"]`.
    """

    input: Annotated[float, about("Tokens of the prompt.", _RATE, least=0, most=MOST)]
    output: Annotated[float, about("Tokens of the answer.", _RATE, least=0, most=MOST)]
    cached_input: Annotated[
        float | None,
        about("Tokens that the provider read from its own cache.", _RATE + NONE, least=0, most=MOST),
    ] = None
    cache_write: Annotated[
        float | None, about("Tokens that it wrote there.", _RATE + NONE, least=0, most=MOST)
    ] = None
    cache_write_1h: Annotated[
        float | None, about("Of these, tokens that stay for an hour.", _RATE + NONE, least=0, most=MOST)
    ] = None
