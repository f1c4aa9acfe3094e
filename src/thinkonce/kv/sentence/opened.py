"""The decoder of a loaded model, as its settings want it."""

from __future__ import annotations

import logging

from thinkonce.errors import ConfigError
from thinkonce.kv.sentence.decoder import LEAST, SentenceDecoder
from thinkonce.kv.sentence.ends import SentenceEnds
from thinkonce.kv.weights.model import Model

__all__ = ("decoder_of",)

_logger = logging.getLogger("thinkonce.kv")


def decoder_of(model: Model, tokens: int) -> SentenceDecoder | None:
    """How answers to prompts of more than `tokens` attend to them; None where that is to all.

    Raises ConfigError for a budget that leaves nothing to choose. A model of which every layer
    has a sliding window attends to no more than that anyway: one line in the log.
    """
    if not tokens:
        return None
    if tokens < LEAST:
        raise ConfigError("[kv] sentence_tokens", tokens, f"0, which is off, or {LEAST} and more")
    decoder = SentenceDecoder(model.network, SentenceEnds(model.tokenizer), tokens)
    if decoder.layers:
        return decoder
    _logger.warning("%s: [kv] sentence_tokens is left aside: no layer looks far", model.name)
    return None
