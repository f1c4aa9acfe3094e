"""What a call costs: list prices from a dated file, overridden by whoever knows better.

A model nobody knows the price of has none: savings are then told in tokens and time, not guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files

import msgspec

__all__ = ("Price", "Prices")

# `gpt-4o-2024-08-06`, `claude-haiku-4-5-20251001`, `gemini-3.1-pro-preview`, `...-latest`.
_DATED = re.compile(r"(-\d{4}-\d{2}-\d{2}|-\d{8}|-\d{4}|-latest|-preview)+$")
# Anthropic's API writes 4-5 where its price list writes 4.5.
_HYPHENATED = re.compile(r"^(claude-[a-z]+-\d+)-(\d{1,2})$")
MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens."""

    prompt: float
    completion: float


class _File(msgspec.Struct, frozen=True):
    as_of: str
    note: str
    models: dict[str, tuple[float, float]]


class Prices:
    """`overrides` win over the list. `as_of` dates the list. Immutable, hence thread-safe."""

    def __init__(self, overrides: Mapping[str, Price] | None = None) -> None:
        text = files("thinkonce.insight").joinpath("prices.json").read_bytes()
        listed = msgspec.json.decode(text, type=_File)
        self.as_of = listed.as_of
        self._prices = {name: Price(*pair) for name, pair in listed.models.items()}
        self._prices.update(overrides or {})

    def of(self, model: str) -> Price | None:
        """The price of a model as its API names it: a provider's prefix and a date may be on it."""
        for name in (model, model.rpartition("/")[2]):
            for form in (name, _DATED.sub("", name)):
                price = self._prices.get(form) or self._prices.get(_HYPHENATED.sub(r"\1.\2", form))
                if price is not None:
                    return price
        return None

    def cost(
        self, models: Iterable[str], prompt_tokens: int, completion_tokens: int
    ) -> float | None:
        """US dollars of one call; None where the price or the tokens are unknown.

        `models`: the names the model goes by, the most telling first.
        """
        price = next((found for name in models if (found := self.of(name)) is not None), None)
        if price is None or not (prompt_tokens or completion_tokens):
            return None
        return (prompt_tokens * price.prompt + completion_tokens * price.completion) / MILLION
