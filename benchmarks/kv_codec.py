"""What does attention state in fewer bits save, and how far are answers from exact ones?

Real prompts of some 600 tokens (`reuse/prompts.py`). The exact reading of a prompt is the truth;
a codec keeps the blocks of 128 tokens that the engine would keep, gives them back, and the rest is
read behind them. Then it is shown the 16 tokens that the truth prefers: at each place KL(truth ||
codec) of the next token, and whether both prefer the same. `raw` is the control: it must differ by
nothing.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, median

import torch
from record import Goal, Table, record
from reuse.fidelity import PLACES
from reuse.prompts import DATA, Prompt, prompts
from rich.progress import track

from thinkonce.kv.generation.codecs.choice import CODECS, codec_of
from thinkonce.kv.generation.decode import forward
from thinkonce.kv.generation.slab import Slab
from thinkonce.kv.generation.support import shape_of
from thinkonce.kv.weights.model import Model, load

PROMPTS, CHUNK, RESAMPLES = 60, 128, 2000
CLAIM = "In eight bits attention state takes about half of bf16, and answers hardly move."


@dataclass
class Found:
    """Of one codec: a number for each prompt, and for each block."""

    kl: list[float] = field(default_factory=list)
    agree: list[float] = field(default_factory=list)
    encoding: list[float] = field(default_factory=list)
    decoding: list[float] = field(default_factory=list)


def main(argv: list[str]) -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--prompts", type=int, default=PROMPTS)
    options.add_argument("--dtype", default="auto")
    given = options.parse_args(argv)
    if not DATA.exists():
        print(f"skipped: the prompts of {DATA.name} are not here")
        return 0
    torch.set_num_threads(1)
    model = load(dtype=given.dtype)
    found = measured(model, prompts(_cut(model), given.prompts))
    rows = [row(model, name, each) for name, each in found.items()]
    for each in rows:
        print(*each, sep="\t")
    if given.prompts >= PROMPTS and given.dtype == "auto":
        write(model, rows, found)
    return int(max(found["raw"].kl) > 0)


def _cut(model: Model):  # type: ignore[no-untyped-def]
    return lambda text: tuple(model.tokenizer(text, add_special_tokens=False)["input_ids"])


def measured(model: Model, asked: Sequence[Prompt]) -> dict[str, Found]:
    found: dict[str, Found] = defaultdict(Found)
    for prompt in track(asked, "reading"):
        tokens = prompt.tokens
        kept = (len(tokens) - 1) // CHUNK * CHUNK
        slab = Slab(shape_of(model.network))
        first = _read(model, slab, tokens, 0)
        states = [slab.copy(at, at + CHUNK) for at in range(0, kept, CHUNK)]
        truth, answer = _preferred(model, slab, first, len(tokens))
        for name in CODECS:
            _compare(model, name, tokens, states, truth, answer, found[name])
    return dict(found)


@torch.inference_mode()
def _compare(
    model: Model,
    name: str,
    tokens: Sequence[int],
    states: Sequence[torch.Tensor],
    truth: torch.Tensor,
    answer: Sequence[int],
    found: Found,
) -> None:
    codec = codec_of(name, shape_of(model.network))  # type: ignore[arg-type]
    slab = Slab(shape_of(model.network))
    slab.reserve(len(tokens) + PLACES)
    for state in states:
        began = time.thread_time()
        kept = codec.encode(state)
        encoded = time.thread_time()
        slab.load(codec.decode(kept))
        found.decoding.append(time.thread_time() - encoded)
        found.encoding.append(encoded - began)
    logits = [_read(model, slab, tokens, slab.length)]
    logits += [
        forward(model.network, [token], len(tokens) + place, slab.cache)
        for place, token in enumerate(answer[:-1])
    ]
    shown = torch.stack(logits).log_softmax(-1)
    found.kl.append(float((truth.exp() * (truth - shown)).sum(-1).clamp_min(0).mean()))
    found.agree.append(float((shown.argmax(-1) == truth.argmax(-1)).float().mean()))


def _read(model: Model, slab: Slab, tokens: Sequence[int], start: int) -> torch.Tensor:
    """As the engine reads: in pieces of a block."""
    with torch.inference_mode():
        slab.reserve(len(tokens) + PLACES)
        for at in range(start, len(tokens), CHUNK):
            logits = forward(model.network, tokens[at : at + CHUNK], at, slab.cache)
    return logits


def _preferred(
    model: Model, slab: Slab, logits: torch.Tensor, place: int
) -> tuple[torch.Tensor, list[int]]:
    """Log-probabilities [PLACES, vocabulary], and the likeliest tokens."""
    rows, answer = [logits], [int(logits.argmax())]
    while len(answer) < PLACES:
        rows.append(forward(model.network, answer[-1:], place + len(answer) - 1, slab.cache))
        answer.append(int(rows[-1].argmax()))
    return torch.stack(rows).log_softmax(-1), answer


def row(model: Model, name: str, found: Found) -> list[str | float | int | None]:
    size = codec_of(name, shape_of(model.network)).size(CHUNK) / CHUNK  # type: ignore[arg-type]
    return [
        name,
        round(size),
        round(1e3 * median(found.encoding), 2),
        round(1e3 * median(found.decoding), 2),
        round(fmean(found.kl), 6),
        round(max(found.kl), 5),
        round(100 * fmean(found.agree), 2),
        round(100 * lower(found.agree), 2),
    ]


def lower(shares: Sequence[float]) -> float:
    """The lower end of the 95 % interval of the mean, by resampling prompts."""
    drawn = random.Random("codec")
    means = sorted(fmean(drawn.choices(shares, k=len(shares))) for _ in range(RESAMPLES))
    return means[int(0.025 * RESAMPLES)]


def write(
    model: Model, rows: list[list[str | float | int | None]], found: dict[str, Found]
) -> None:
    sizes = {str(each[0]): int(each[1] or 0) for each in rows}
    part, own = sizes["int8"] / sizes["raw"], found["int8"]
    kl, top = fmean(own.kl), 100 * lower(own.agree)
    dtype = str(model.network.dtype).removeprefix("torch.")
    table = Table(
        f"{model.name}, {dtype}, {len(found['raw'].kl)} prompts, blocks of {CHUNK} tokens",
        [
            "codec",
            "bytes a token",
            "encode a block, ms",
            "decode a block, ms",
            "mean KL",
            "largest KL of a prompt",
            "top-1, %",
            "lower end of its 95 %",
        ],
        rows,
    )
    print(
        record(
            "kv_codec",
            CLAIM,
            [table],
            [
                Goal("raw differs by", "0", max(found["raw"].kl), max(found["raw"].kl) == 0),
                Goal("bytes of int8 over raw, fp32", "<= 0.27", round(part, 3), part <= 0.27),
                Goal("mean KL of int8", "<= 0.001", round(kl, 6), kl <= 0.001),
                Goal("top-1 of int8, lower end, %", ">= 98", round(top, 2), top >= 98),
            ],
            [
                "KL and top-1 over 16 places a prompt, in which the truth's own tokens are shown. "
                "CPU time of one thread; what it loads is decoded into the slab.",
            ],
            packages=("torch", "transformers"),
        )
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
