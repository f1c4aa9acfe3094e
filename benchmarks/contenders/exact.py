"""This project's engine: chunks of one length, whose state is kept by name."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import torch
from lines import Ask, Setting, serve

from thinkonce.kv.generation.exact import exact_generator
from thinkonce.kv.generation.generator import Prefilled, Sampling, Token
from thinkonce.kv.generation.keeping import Keeping
from thinkonce.kv.generation.support import fingerprint_of
from thinkonce.kv.prefix.asking import Asking
from thinkonce.kv.prefix.index import PrefixIndex
from thinkonce.kv.prefix.owner import Owner
from thinkonce.kv.weights.model import load
from thinkonce.version import __version__

CHUNK, ROOM = 128, 2**31  # tokens, bytes


def opened(setting: Setting) -> tuple[str, Ask]:
    torch.set_num_threads(setting["threads"])
    model = load(setting["model"], dtype=setting["dtype"])
    generator = exact_generator(
        Keeping(
            model.network,
            chunk_tokens=CHUNK,
            fingerprint=fingerprint_of(model.network, model.tokenizer, CHUNK).digest(),
            kept=PrefixIndex(ROOM),
        ),
        model.end_ids,
    )
    strangers = count()

    def ask(prompt: Sequence[int], tokens: int, known: bool) -> tuple[list[int], int]:
        owner = Owner("known" if known else f"stranger {next(strangers)}")
        sampling = Sampling(max_tokens=tokens, temperature=0)
        answer, cached = [], 0
        for event in generator.generate(Asking.of(prompt, owner), sampling, lambda: False):
            if isinstance(event, Prefilled):
                cached = event.cached_tokens
            elif isinstance(event, Token):
                answer.append(event.id)
        return answer, cached

    return __version__, ask


if __name__ == "__main__":
    serve(opened)
