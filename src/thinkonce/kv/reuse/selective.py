"""The selective forward: some tokens of a sequence computed behind the stored rest.

    slab     | system | chunk, turned | chunk, turned | blank     |     filled by the caller
    rows              | xx            | xx            | xxxxxxxxx |     computed, written over

Every method of reuse beyond the prefix is a choice of rows. Over state that is exact the result is
exact but for rounding, whichever rows are chosen; over state that was encoded in other company it
is as good as the choice. All rows from blanks is a cold prefill.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from thinkonce.kv.generation.decode import forward_at
from thinkonce.kv.generation.masks import Masks, kind_of, masks
from thinkonce.kv.generation.slab import Slab
from thinkonce.kv.reuse.layout import Deviation, Layout, Plan
from thinkonce.kv.reuse.looks import Looks, watched

__all__ = ("Selected", "computed", "filtered", "recomputed")


@dataclass(frozen=True, slots=True)
class Selected:
    """`logits` after the last token, fp32 [vocabulary]; `rows` is a mean over the layers."""

    logits: torch.Tensor
    rows: float


def recomputed(
    network: Any, slab: Slab, tokens: Sequence[int], layout: Layout, plan: Plan
) -> Selected:
    """Carry out a plan over a slab that holds the layout's state; it holds `len(tokens)` after.

    Call it in inference mode. `tokens` are all ids of the prompt.
    """
    if plan.quotas is not None:
        return filtered(network, slab, tokens, layout, plan)
    unknown, places = layout.unknown, set(plan.places)
    if plan.looked:
        looks = Looks(slab, unknown, plan.deep)
        with watched(network, looks):
            computed(network, slab, tokens, unknown)
        places.update(
            looks.most([each for each in layout.moved if each not in places], plan.looked)
        )
    rows = sorted({*places, *unknown})
    read = len(rows) + (len(unknown) if plan.looked else 0)
    return Selected(computed(network, slab, tokens, rows), float(read))


def computed(network: Any, slab: Slab, tokens: Sequence[int], rows: Sequence[int]) -> torch.Tensor:
    """Compute the tokens at `rows` (sorted) over what the slab holds; the logits after the last.

    One forward pass of the model as it is. Rows may be cut into several calls, in order: none
    sees a later one.
    """
    places = torch.tensor(rows, device=network.device)
    positions = torch.arange(slab.length, device=network.device)
    return forward_at(network, slab, [tokens[row] for row in rows], places, positions)


def filtered(
    network: Any, slab: Slab, tokens: Sequence[int], layout: Layout, plan: Plan
) -> Selected:
    """Layer by layer, with fewer rows in each as `plan.quotas` say.

    What a layer computed for rows that are dropped behind it stays written.
    """
    rows = sorted({*plan.places, *layout.unknown})
    always = {*layout.unknown, *plan.pinned}
    quotas, total = plan.quotas or (), 0
    state = _State(network, slab, tokens, rows)
    for layer in range(network.config.num_hidden_layers):
        total += len(rows)
        left = quotas[layer + 1] if layer + 1 < len(quotas) else len(rows)
        stored = state.stored(layer) if left + len(always) < len(rows) else None
        state.run(layer)
        if stored is not None:
            deviating = _deviation(stored, state.stored(layer), plan.by).tolist()
            kept = _kept(rows, deviating, left, always)
            rows = [rows[number] for number in kept]
            state.keep(torch.tensor(kept, device=network.device))
    return Selected(state.logits(), total / network.config.num_hidden_layers)


def _kept(rows: list[int], deviating: list[float], left: int, always: set[int]) -> list[int]:
    """Which of `rows`, by number and in order, go on: `left` that deviate most, and `always`."""
    free = [number for number, row in enumerate(rows) if row not in always]
    pinned = [number for number, row in enumerate(rows) if row in always]
    best = sorted(free, key=lambda number: -deviating[number])[:left]
    return sorted([*pinned, *best])


def _deviation(stored: torch.Tensor, fresh: torch.Tensor, by: Deviation) -> torch.Tensor:
    """[rows] in fp32, of keys and values [2, heads, rows, dim]: the squared difference.

    Of both it is their sum, each relative to what all rows have: keys are longer than values.
    """
    fresh = fresh.float()
    parts = (stored.float() - fresh).square().sum((1, 3))
    if by == "keys":
        return parts[0]
    if by == "values":
        return parts[1]
    whole = fresh.square().sum((1, 2, 3))
    return parts[0] / whole[0] + parts[1] / whole[1]


class _State:
    """The rows on their way through the layers: hidden state, places and masks, shrunk together."""

    def __init__(
        self, network: Any, slab: Slab, tokens: Sequence[int], rows: Sequence[int]
    ) -> None:
        device = network.device
        self._network, self._slab = network, slab
        self._places = torch.tensor(rows, device=device)
        self._masks: Masks = masks(network, self._places, slab.length)
        ids = torch.tensor([[tokens[row] for row in rows]], device=device)
        self._hidden = network.model.embed_tokens(ids)
        self._turn()

    def run(self, layer: int) -> None:
        """One decoder layer, which writes its keys and values over those at the rows' places."""
        kind = kind_of(self._network.config, layer)
        self._hidden = self._network.model.layers[layer](
            self._hidden,
            attention_mask=self._masks[kind],
            position_ids=self._places[None],
            past_key_values=self._cache,
            use_cache=True,
            position_embeddings=self._angles[kind],
        )

    def stored(self, layer: int) -> torch.Tensor:
        """A copy of the keys and values at the rows' places: [2, heads, rows, dim]."""
        return self._slab.tensor[layer][:, :, self._places]

    def keep(self, numbers: torch.Tensor) -> None:
        """Go on with these rows alone."""
        self._places, self._hidden = self._places[numbers], self._hidden[:, numbers]
        self._masks = {kind: mask[:, :, numbers] for kind, mask in self._masks.items()}
        self._turn()

    def logits(self) -> torch.Tensor:
        network = self._network
        found: torch.Tensor = network.lm_head(network.model.norm(self._hidden[:, -1:]))[0, -1]
        if cap := getattr(network.config, "final_logit_softcapping", None):
            found = torch.tanh(found / cap) * cap
        return found.float().cpu()

    def _turn(self) -> None:
        """The rotary embedding of the places, for each kind of layer."""
        self._cache = self._slab.scattered(self._places)
        embedding, positions = self._network.model.rotary_emb, self._places[None]
        own = isinstance(embedding.rope_type, dict)
        self._angles = {
            kind: embedding(self._hidden, positions, kind)
            if own
            else embedding(self._hidden, positions)
            for kind in self._masks
        }
