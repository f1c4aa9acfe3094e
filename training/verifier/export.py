"""Makes what ships of a training's checkpoint: ONNX in eight bits, calibration, model card.

    python export.py --data ../../../shared/data --from OUT --to ../../src/thinkonce/meaning/weights

Needs `onnx` and `onnxruntime`. `--sample 0.1` measures a tenth, for a look while training runs;
what is exported from an unfinished training says so in its card. `--bare` leaves out calibration
and card, of a model that is only measured.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
from pathlib import Path

import torch
from models import Apart, Together, layer_of
from tokenizers import Tokenizer
from torch import Tensor, nn
from train import Verifier, encoded
from transformers import BertConfig

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src")]

from card import measured, write_card  # noqa: E402
from labelled import pairs  # noqa: E402
from scales import fitted  # noqa: E402
from smoothing import smooth  # noqa: E402

MOST_BYTES = 40 * 2**20  # of the model
OPSET = 17
_SEEN = 256  # pairs of the training part, by which ranges are known


class Plain(nn.Module):
    """`Together` in operations that ONNX Runtime knows how to fuse and to quantise."""

    def __init__(self, trained: Together, config: BertConfig) -> None:
        super().__init__()
        self.body, self.pool, self.head = trained.body, trained.pool, trained.head
        self.heads = config.num_attention_heads

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        body = self.body
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        known = body.embeddings
        states = known.word_embeddings(input_ids) + known.token_type_embeddings(token_type_ids)
        states = known.LayerNorm(states + known.position_embeddings(places))
        masked = (1.0 - attention_mask[:, None, None, :].float()) * -1e4
        for layer in body.encoder.layer:
            states = layer_of(layer, states, masked, self.heads)
        return self.head(torch.tanh(self.pool(states[:, 0])))[:, 0]  # type: ignore[no-any-return]


def trained_model(state: dict[str, Tensor]) -> tuple[Verifier, BertConfig]:
    """Its shape is read from the weights."""
    words = state["body.embeddings.word_embeddings.weight"]
    layers = {int(name.split(".")[3]) for name in state if name.startswith("body.encoder.layer.")}
    config = BertConfig(
        vocab_size=words.shape[0],
        hidden_size=words.shape[1],
        num_hidden_layers=len(layers),
        num_attention_heads=12,
        intermediate_size=state["body.encoder.layer.0.intermediate.dense.weight"].shape[0],
        max_position_embeddings=state["body.embeddings.position_embeddings.weight"].shape[0],
        type_vocab_size=state["body.embeddings.token_type_embeddings.weight"].shape[0],
        layer_norm_eps=1e-12,
        pad_token_id=1,
    )
    model = Apart(config) if "slope" in state else Together(config)
    model.load_state_dict(state)
    return model.eval(), config


def write_onnx(model: nn.Module, to: Path) -> None:
    ids = torch.tensor([[0, 9, 2, 2, 9, 2]])
    names = ["input_ids", "attention_mask", "token_type_ids"]
    axes = {name: {0: "batch", 1: "tokens"} for name in names} | {"logit": {0: "batch"}}
    torch.onnx.export(
        model, (ids, torch.ones_like(ids), torch.zeros_like(ids)), str(to), dynamo=False,
        input_names=names, output_names=["logit"], dynamic_axes=axes, opset_version=OPSET,
    )  # fmt: skip


def quantise(whole: Path, to: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # A scale a column; seven bits, since the sums of eight overflow on CPUs without VNNI.
    quantize_dynamic(
        whole, to, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True
    )  # fmt: skip


def _read_some(model: nn.Module, tokenizer: Tokenizer, data: Path) -> None:
    known = [pair for pair in pairs(data) if pair.part == "train"]
    some = random.Random(1).sample(known, _SEEN)
    for begin in range(0, _SEEN, 32):
        model(*encoded(tokenizer, some[begin : begin + 32]))


def main(options: argparse.Namespace) -> None:
    state = torch.load(options.source / "checkpoint.pt", weights_only=True, mmap=True)
    model, config = trained_model(state["model"])
    options.to.mkdir(parents=True, exist_ok=True)
    whole, small = options.to / "whole.onnx", options.to / "model.onnx"
    tokenizer = Tokenizer.from_file(str(options.source / "tokenizer.json"))
    plain = model if isinstance(model, Apart) else Plain(model, config)
    smooth(model.body, lambda: _read_some(plain, tokenizer, options.data))
    with torch.no_grad():
        write_onnx(plain, whole)
    quantise(whole, small)
    if small.stat().st_size > MOST_BYTES:
        raise SystemExit(f"{small.stat().st_size} bytes; {MOST_BYTES} are the most")
    shutil.copy(options.source / "tokenizer.json", options.to / "tokenizer.json")
    if options.bare:
        whole.unlink()
        return
    fitted(options.to, options.sample, options.seed)
    found = measured(options.data, options.to, options.sample)
    whole.unlink()
    write_card(options.to, found, state["step"], config.num_hidden_layers, options)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--from", dest="source", type=Path, required=True, help="train's --out")
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--sample", type=float, default=1.0, help="share that is measured")
    parser.add_argument("--bare", action="store_true", help="neither calibration nor card")
    parser.add_argument("--class-a", action="store_true", help="trained with train's --class-a")
    parser.add_argument("--steps", type=int, default=2000, help="of the whole training")
    parser.add_argument("--seed", type=int, default=1, help="the training's")
    return parser.parse_args()


if __name__ == "__main__":
    main(arguments())
