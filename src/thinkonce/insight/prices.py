"""What a call costs: list prices from a dated file, overridden by whoever knows better.

A model nobody knows the price of has none: savings are then told in tokens and time, not guessed.
The same holds for a call that the provider billed in part at a rate that is not in the list. What
is forgotten first has to be weighed all the same, in one unit: `worth` estimates.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib.resources import files

import msgspec

from thinkonce.protocols.billing import Billed

__all__ = ("CURRENCY", "TYPICAL", "TYPICAL_EMBEDDINGS", "TYPICAL_SECOND", "Price", "Prices")

CURRENCY = "USD"  # of `saved_cost`, `saved_usd` and every price
# `gpt-4o-2024-08-06`, `claude-haiku-4-5-20251001`, `gemini-3.1-pro-preview`, `...-latest`.
_DATED = re.compile(r"(-\d{4}-\d{2}-\d{2}|-\d{8}|-\d{4}|-latest|-preview)+$")
# Anthropic's API writes 4-5 where its price list writes 4.5.
_HYPHENATED = re.compile(r"^(claude-[a-z]+-\d+)-(\d{1,2})$")
MILLION = 1_000_000
MOST_NAMES = 1000  # remembered
_OWN_RATES = ("cached_input", "cache_write", "cache_write_1h")  # a price may lack them


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """US dollars per million tokens; None: not known.

    `cached_input` is for tokens that the provider read from its own cache, `cache_write` for those
    it wrote there, `cache_write_1h` for those that stay for an hour.
    """

    input: float
    output: float
    cached_input: float | None = None
    cache_write: float | None = None
    cache_write_1h: float | None = None

    def of(self, tokens: Billed) -> float | None:
        """US dollars of one call; None where it used a rate that is not known."""
        parts = (
            (tokens.input, self.input),
            (tokens.cached, self.cached_input),
            (tokens.written, self.cache_write),
            (tokens.written_1h, self.cache_write_1h),
            (tokens.output, self.output),
        )
        total = 0.0
        for count, rate in parts:
            if count and rate is None:
                return None
            total += count * (rate or 0.0)
        return total / MILLION

    def about(self, tokens: Billed) -> float:
        """US dollars of one call, more or less: rates that are not known count as `input`."""
        known = {name: rate for name in _OWN_RATES if (rate := getattr(self, name)) is not None}
        full = msgspec.structs.replace(self, **(dict.fromkeys(_OWN_RATES, self.input) | known))
        return full.of(tokens) or 0.0


# Where a model's price is not known. The medians of prices.json (as of 2026-11-22) for models that
# write, and for embeddings.
TYPICAL = Price(input=2.0, output=10.0)
TYPICAL_EMBEDDINGS = Price(input=0.075, output=0.0)
# Where the tokens are not known either, US dollars a second: 50 tokens at the typical rate.
TYPICAL_SECOND = 50 * TYPICAL.output / MILLION


class _File(msgspec.Struct, frozen=True):
    as_of: str
    currency: str
    unit: str
    sources: list[str]
    note: str
    models: dict[str, Price]


class Prices:
    """`overrides` win over the list. `as_of` dates the list. Thread-safe."""

    def __init__(self, overrides: Mapping[str, Price] | None = None) -> None:
        text = files("thinkonce.insight").joinpath("prices.json").read_bytes()
        listed = msgspec.json.decode(text, type=_File)
        assert listed.currency == CURRENCY, "one currency everywhere: sums must mean something"
        self.as_of, self.sources = listed.as_of, tuple(listed.sources)
        self.overridden = len(overrides or {})
        self._prices = listed.models | dict(overrides or {})
        self._found: dict[str, Price | None] = {}  # by names as they come

    def __len__(self) -> int:
        return len(self._prices)

    def about(self) -> dict[str, str | int]:
        """Which list it is, for those who see sums made with it."""
        listed, own = len(self._prices), self.overridden
        return {"as_of": self.as_of, "currency": CURRENCY, "known": listed, "overridden": own}

    def of(self, model: str) -> Price | None:
        """The price of a model as its API names it: a provider's prefix and a date may be on it."""
        found = self._found
        if model not in found:
            if len(found) >= MOST_NAMES:  # clients choose them
                found = self._found = {}
            found[model] = self._look_up(model)
        return found[model]

    def _look_up(self, model: str) -> Price | None:
        for name in (model, model.rpartition("/")[2]):
            for form in (name, _DATED.sub("", name)):
                price = self._prices.get(form) or self._prices.get(_HYPHENATED.sub(r"\1.\2", form))
                if price is not None:
                    return price
        return None

    def cost(self, models: Iterable[str], tokens: Billed) -> float | None:
        """US dollars of one call; None where the price or the tokens are unknown.

        `models`: the names the model goes by, the most telling first.
        """
        price = self._first(models)
        return None if price is None or tokens == _NONE else price.of(tokens)

    def worth(self, models: Iterable[str], tokens: Billed, seconds: float) -> float:
        """US dollars of one call, estimated where `cost` knows none: for weighing, not for sums.

        `seconds`: how long it took, which counts where the tokens are unknown.
        """
        if tokens == _NONE:
            return seconds * TYPICAL_SECOND
        price = self._first(models) or (TYPICAL if tokens.output else TYPICAL_EMBEDDINGS)
        exact = price.of(tokens)
        return price.about(tokens) if exact is None else exact

    def _first(self, models: Iterable[str]) -> Price | None:
        return next((found for name in models if (found := self.of(name)) is not None), None)


_NONE = Billed()
