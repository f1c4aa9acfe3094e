"""The part of the base model's vocabulary that Chinese and English need.

250,002 pieces for a hundred languages are most of the base model's bytes. Kept are all pieces of
Han characters, and of the other pieces in ASCII, Latin letters, digits and signs those that the
texts at hand are cut into. A Unigram vocabulary cuts anything else into smaller pieces it still
has, single characters at the least.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from base import Base
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

__all__ = ("choose", "tokenizer_of")

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
_HAN = re.compile(r"▁?[㐀-鿿]+")
_ALLOWED = re.compile(r"[▁!-~¡-ɏ‐-⁯₠-₿℀-⅏←-⇿∀-⋿①-⓿■-◿☀-➿　-〿㐀-鿿＀-￯]+")
LONGEST_HAN = 6  # longer pieces are names and headlines


def tokenizer_of(pieces: list[str], scores: np.ndarray[Any, Any], prefix: str = "") -> Tokenizer:
    """Pairs as `<s> a </s> </s> b </s>`, the second half of them of type 1.

    With a prefix as two texts, each of which begins with it: `<s> query: a </s> <s> query: b </s>`.
    """
    tokenizer = Tokenizer(
        models.Unigram(list(zip(pieces, map(float, scores), strict=True)), pieces.index("<unk>"))
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    begun = ["<s>", *tokenizer.encode(prefix, add_special_tokens=False).tokens]
    opening = {"id": "<begin>", "ids": [pieces.index(each) for each in begun], "tokens": begun}
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair=f"<begin>:0 $A:0 </s>:0 {'<begin>' if prefix else '</s>'}:1 $B:1 </s>:1",
        special_tokens=[("<s>", pieces.index("<s>")), ("</s>", pieces.index("</s>")), opening],
    )
    return tokenizer


def choose(base: Base, texts: Iterable[str], least: int) -> list[int]:
    """Ids of the pieces to keep, in their order; those not of Han at `least` uses in `texts`."""
    full = tokenizer_of(base.pieces, base.scores)
    uses: Counter[int] = Counter()
    for found in full.encode_batch(list(texts), add_special_tokens=False):
        uses.update(found.ids)
    return [n for n, piece in enumerate(base.pieces) if _is_kept(piece, uses[n], least)]


def _is_kept(piece: str, uses: int, least: int) -> bool:
    if piece in SPECIAL:
        return True
    if _HAN.fullmatch(piece):
        return len(piece.lstrip("▁")) <= LONGEST_HAN
    if len(piece.lstrip("▁")) <= 1:
        return _ALLOWED.fullmatch(piece) is not None
    return uses >= least and _ALLOWED.fullmatch(piece) is not None
