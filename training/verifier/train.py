"""Trains the verifier: a cross-encoder that says whether one answer answers two questions.

Goes on where it was broken off: a checkpoint is written every few minutes.

    python train.py --data ../../shared/data --out weights [--leave-out lcqmc] [--class-a --apart]
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from base import read_base, weights_file
from models import Apart, Together
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import BertConfig
from vocabulary import choose, tokenizer_of

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "benchmarks" / "semantic")]

from examples import CLASS_A, Corpus, corpus  # noqa: E402
from labelled import Pair, background, pairs  # noqa: E402
from measure import report  # noqa: E402

LONGEST = 96  # tokens of a pair in training; few are longer, and they cost the most
SAVE_EVERY = 250  # steps
_NUMBERS_RATE = 3e-3
_PLAIN = ("banking77", "clinc150", "arena_hard", "msmarco_dev_queries", "sharegpt_v3_sample")


Verifier = Together | Apart


def start(
    data: Path, layers: list[int], *, only_class_a: bool = False, apart: bool = False
) -> tuple[Verifier, Tokenizer]:
    """The base model with the vocabulary and the layers that are kept."""
    base = read_base(weights_file())
    # A fifth of the texts has a fifth of the words' uses.
    prefix = "query: " if apart else ""
    texts = [*_texts(data, only_class_a=only_class_a), prefix, prefix]
    kept = choose(base, texts, least=1 if only_class_a else 2)
    config = BertConfig(
        vocab_size=len(kept),
        hidden_size=base.hidden,
        num_hidden_layers=len(layers),
        num_attention_heads=base.heads,
        intermediate_size=base.inner,
        max_position_embeddings=base.positions,
        type_vocab_size=base.types,
        layer_norm_eps=base.epsilon,
        pad_token_id=base.special["pad"],
        # An epoch or two of this much: drawing the masks took a fifth of the time for nothing.
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        # The fused kernel's backward takes a third of a step at these lengths.
        attn_implementation="eager",
    )
    model = (Apart if apart else Together)(config)
    tensors = {name: torch.from_numpy(value) for name, value in base.tensors.items()}
    name = "embeddings.word_embeddings.weight"
    tensors[name] = tensors[name][kept]
    tensors = {_renumbered(name, layers): value for name, value in tensors.items()}
    tensors.pop("", None)
    model.body.load_state_dict(tensors)
    # Two fifths of all numbers, and they fit as they are.
    model.body.embeddings.requires_grad_(False)
    return model, tokenizer_of([base.pieces[n] for n in kept], base.scores[kept], prefix)


def _texts(data: Path, *, only_class_a: bool) -> list[str]:
    """What the vocabulary is chosen by."""
    known = [pair for pair in pairs(data) if pair.part == "train"]
    if only_class_a:
        known = [pair for pair in known if pair.source in CLASS_A]
    texts = [text for pair in known for text in (pair.a, pair.b)]
    for name in _PLAIN:
        if not only_class_a or name in CLASS_A:
            texts += background(name, data)
    return texts


def _renumbered(name: str, layers: list[int]) -> str:
    """ "" for a tensor of a layer that is left out."""
    parts = name.split(".")
    if parts[0] != "encoder":
        return name
    number = int(parts[2])
    return ".".join([*parts[:2], str(layers.index(number)), *parts[3:]]) if number in layers else ""


def encoded(tokenizer: Tokenizer, batch: list[Pair]) -> tuple[Tensor, Tensor, Tensor]:
    tokenizer.enable_truncation(LONGEST)
    tokenizer.enable_padding(pad_id=1, pad_token="<pad>")
    found = tokenizer.encode_batch([(pair.a, pair.b) for pair in batch])
    return (
        torch.tensor([one.ids for one in found]),
        torch.tensor([one.attention_mask for one in found]),
        torch.tensor([one.type_ids for one in found]),
    )


def batches(known: Corpus, seed: int, size: int) -> Iterator[list[Pair]]:
    """Pairs of like length together: what is padded is computed for nothing."""
    chance, epoch = random.Random(seed), known.epoch(seed)
    found = []
    for begin in range(0, len(epoch), size * 50):
        pool = sorted(epoch[begin : begin + size * 50], key=lambda pair: len(pair.a) + len(pair.b))
        found += [pool[at : at + size] for at in range(0, len(pool), size)]
    chance.shuffle(found)
    yield from found


def train(options: argparse.Namespace) -> None:
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    layers = [int(each) for each in options.layers.split(",")]
    model, tokenizer = start(
        options.data, layers, only_class_a=options.class_a, apart=options.apart
    )
    known = corpus(options.data, options.leave_out, only_class_a=options.class_a)
    held = [pair for pair in pairs(options.data) if pair.part == "calibration"]
    learnt = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in learnt if p.dim() > 1]
    plain = [p for p in learnt if p.dim() <= 1]
    numbers = [p for p in plain if p.dim() == 0]  # `Apart` has two, of another size than weights
    plain = [p for p in plain if p.dim() == 1]
    groups = [
        {"params": decayed, "weight_decay": 0.01},
        {"params": plain, "weight_decay": 0.0},
        {"params": numbers, "weight_decay": 0.0, "lr": _NUMBERS_RATE},
    ]
    optimiser = torch.optim.AdamW(groups, lr=options.rate, betas=(0.9, 0.98), foreach=True)

    def share(step: int) -> float:
        return min((step + 1) / options.warmup, max(options.steps - step, 0) / options.steps + 0.01)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, share)
    saved, step, epoch = options.out / "checkpoint.pt", 0, 0
    if options.begin:
        model.load_state_dict(torch.load(options.begin, weights_only=True)["model"])
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        step, epoch = state["step"], state["epoch"]
    options.out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(options.out / "tokenizer.json"))
    losses: list[float] = []
    began = time.monotonic()
    while step < options.steps:
        for batch in batches(known, options.seed + epoch * 1000 + step, options.batch):
            losses.append(_step(model, tokenizer, batch, optimiser, schedule))
            step += 1
            if step % 50 == 0:
                mean = sum(losses[-50:]) / len(losses[-50:])
                print(
                    f"{step}/{options.steps} loss {mean:.4f} {time.monotonic() - began:.0f} s",
                    flush=True,
                )
            if step % SAVE_EVERY == 0 or step == options.steps:
                _save(saved, model, optimiser, schedule, step, epoch)
            if step % 1000 == 0 or step == options.steps:
                found = report(held, scores(model, tokenizer, held))
                print(json.dumps(found), flush=True)
            if step == options.steps:
                break
        epoch += 1


def _step(model, tokenizer, batch, optimiser, schedule) -> float:  # type: ignore[no-untyped-def]
    model.train()
    wanted = torch.tensor([float(pair.label) for pair in batch])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(*encoded(tokenizer, batch))
    loss = nn.functional.binary_cross_entropy_with_logits(logits.float(), wanted)
    loss.backward()
    learnt = [p for p in model.parameters() if p.requires_grad]
    nn.utils.clip_grad_norm_(learnt, 1.0, foreach=True)
    optimiser.step()
    schedule.step()
    optimiser.zero_grad()
    return float(loss.detach())


def _save(path, model, optimiser, schedule, step, epoch) -> None:  # type: ignore[no-untyped-def]
    state = {
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "schedule": schedule.state_dict(),
        "step": step,
        "epoch": epoch,
    }
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


@torch.no_grad()
def scores(
    model: Verifier, tokenizer: Tokenizer, asked: list[Pair], size: int = 128
) -> list[float]:
    """Logits, in the order asked."""
    model.eval()
    order = sorted(range(len(asked)), key=lambda n: len(asked[n].a) + len(asked[n].b))
    found = [0.0] * len(asked)
    for begin in range(0, len(order), size):
        part = order[begin : begin + size]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(*encoded(tokenizer, [asked[n] for n in part]))
        for n, logit in zip(part, logits.float().tolist(), strict=True):
            found[n] = logit
    return found


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--leave-out", nargs="*", default=[])
    parser.add_argument("--class-a", action="store_true")
    parser.add_argument("--apart", action="store_true", help="two texts that do not see each other")
    parser.add_argument("--begin", type=Path, help="a checkpoint whose weights to begin with")
    parser.add_argument("--layers", default="0,1,2,3,4,5,6,7,8,9,10,11")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--warmup", type=int, default=250)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    train(options())
