"""Two ways to make a verifier of the base model: read both questions together, or apart."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

__all__ = ("Apart", "Together", "layer_of", "sight")

_FAR = -1e4  # what is added to the weight of a token that is not looked at


class Together(nn.Module):
    """Logit that `b` asks what `a` asks, from ids, mask and types of shape (batch, tokens)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.body = BertModel(config, add_pooling_layer=False)
        self.pool = nn.Linear(config.hidden_size, config.hidden_size)
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(config.hidden_size, 1)

    def forward(self, ids: Tensor, mask: Tensor, types: Tensor) -> Tensor:
        states = self.body(input_ids=ids, attention_mask=mask, token_type_ids=types)
        first = torch.tanh(self.pool(self.drop(states.last_hidden_state[:, 0])))
        return self.head(self.drop(first))[:, 0]  # type: ignore[no-any-return]


class Apart(nn.Module):
    """The same, of the base model's own use: the cosine of two texts that do not see each other.

    Both lie in one row, so it goes where a cross-encoder goes. Tokens look at those of their type,
    and places are counted anew with the second text, which is the base model's `query: ` twice.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.body = BertModel(config, add_pooling_layer=False)
        self.slope = nn.Parameter(torch.tensor(30.0))
        self.middle = nn.Parameter(torch.tensor(0.9))  # the cosine of "perhaps"

    def forward(self, ids: Tensor, mask: Tensor, types: Tensor) -> Tensor:
        known = self.body.embeddings
        states = known.word_embeddings(ids) + known.token_type_embeddings(torch.zeros_like(ids))
        states = known.LayerNorm(states + known.position_embeddings(_places(mask, types)))
        seen = sight(mask, types)
        for layer in self.body.encoder.layer:
            states = layer_of(layer, states, seen, self.body.config.num_attention_heads)
        return self.logit(states, mask, types)

    def logit(self, states: Tensor, mask: Tensor, types: Tensor) -> Tensor:
        one, other = (_mean(states, mask * part) for part in (1 - types, types))
        cosine = (one * other).sum(-1) / (one.norm(dim=-1) * other.norm(dim=-1))
        return self.slope * (cosine - self.middle)


def sight(mask: Tensor, types: Tensor) -> Tensor:
    """What is added to attention, (batch, 1, tokens, tokens): a text sees itself alone."""
    same = (types[:, :, None] == types[:, None, :]).float() * mask[:, None, :].float()
    return (1.0 - same)[:, None] * _FAR


def layer_of(layer, states, masked, heads):  # type: ignore[no-untyped-def]
    """One layer of the body, in operations that ONNX Runtime knows how to fuse and to quantise."""
    batch, tokens, width = states.shape
    one = layer.attention.self

    def parted(found: Tensor) -> Tensor:
        return found.view(batch, tokens, heads, width // heads).transpose(1, 2)

    query, key, value = (parted(each(states)) for each in (one.query, one.key, one.value))
    weights = query @ key.transpose(-1, -2) / (width // heads) ** 0.5 + masked
    seen = (weights.softmax(-1) @ value).transpose(1, 2).reshape(batch, tokens, width)
    out = layer.attention.output
    states = out.LayerNorm(out.dense(seen) + states)
    inner = nn.functional.gelu(layer.intermediate.dense(states))
    return layer.output.LayerNorm(layer.output.dense(inner) + states)


def _places(mask: Tensor, types: Tensor) -> Tensor:
    first = ((1 - types) * mask).sum(1, keepdim=True)  # tokens of the first text
    return torch.arange(mask.shape[1], device=mask.device) - types * first


def _mean(states: Tensor, counted: Tensor) -> Tensor:
    weight = counted.float()[..., None]
    return (states * weight).sum(1) / weight.sum(1)
