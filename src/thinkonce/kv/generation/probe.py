"""Whether a loaded model, on this machine, gives the same bits from memory as anew.

The tests show it for families and number types on processors. Kernels of other devices choose
their way by shape, driver and workspace, so there it is asked of the device itself, once, before
anything is kept.
"""

from __future__ import annotations

from typing import Any

import torch

from thinkonce.kv.generation.exact import exact_generator
from thinkonce.kv.generation.keeping import Keeping
from thinkonce.kv.generation.reusing import ReusingGenerator
from thinkonce.kv.generation.slab import in_steps
from thinkonce.kv.generation.support import shape_of
from thinkonce.kv.prefix.asking import Asking
from thinkonce.kv.prefix.index import PrefixIndex

__all__ = ("other_bits", "prompts")

_BLOCKS, _NAME = 3, bytes(32)


def other_bits(network: Any, end_ids: frozenset[int], chunk_tokens: int) -> str | None:
    """What differed between prompts read from memory and read anew; None where nothing did.

    Six prompts that share three blocks and more, each read cold and warm: logits, and all keys
    and values, must be equal. Takes about 30 blocks' prefill.
    """
    room = 16 * in_steps(chunk_tokens) * shape_of(network).bytes_a_token
    index: PrefixIndex[torch.Tensor] = PrefixIndex(room)
    warm = _reader(network, end_ids, chunk_tokens, index)
    cold = _reader(network, end_ids, chunk_tokens, None)
    reused = 0
    for prompt in prompts(_vocabulary(network), chunk_tokens):
        asking = Asking.of(prompt)
        found, wanted = (each.read(asking, lambda: False) for each in (warm, cold))
        assert found is not None
        assert wanted is not None
        reused += found.cached_tokens
        if not torch.equal(found.logits, wanted.logits):
            return f"logits behind {found.cached_tokens} tokens from memory"
        if not torch.equal(_written(warm), _written(cold)):
            return f"keys and values of {len(prompt)} tokens"
    return None if reused else "no block was found again"


def prompts(vocabulary: int, chunk_tokens: int) -> list[list[int]]:
    """Prompts that begin alike, end at and around the edge of a block, and branch."""
    drawn = torch.Generator().manual_seed(7)

    def tokens(count: int) -> list[int]:
        found: list[int] = torch.randint(0, vocabulary, (count,), generator=drawn).tolist()
        return found

    shared = tokens(_BLOCKS * chunk_tokens)
    ends = (1, 17, chunk_tokens - 1, chunk_tokens, chunk_tokens + 1)
    return [*(shared + tokens(end) for end in ends), shared[: 2 * chunk_tokens] + tokens(40)]


def _reader(
    network: Any, end_ids: frozenset[int], chunk_tokens: int, kept: PrefixIndex[torch.Tensor] | None
) -> ReusingGenerator:
    return exact_generator(
        Keeping(network, chunk_tokens=chunk_tokens, fingerprint=_NAME, kept=kept), end_ids
    )


def _written(reader: ReusingGenerator) -> torch.Tensor:
    return reader.slab.tensor[:, :, :, : reader.slab.length]


def _vocabulary(network: Any) -> int:
    return int(network.get_output_embeddings().weight.shape[0])
