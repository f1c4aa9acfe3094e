"""A cross-encoder of a few nodes, for tests that need a verifier and not its judgement."""

from __future__ import annotations

from pathlib import Path

import pytest

from thinkonce.meaning.verdict.verifier import MODEL, TOKENIZER

__all__ = ("WORDS", "write_folder")

WORDS = ["<unk>", "<s>", "</s>", "card", "cash", "lost", "order", "卡", "丢"]


def write_folder(folder: Path, classes: int = 1, inputs: int = 3) -> Path:
    """A cross-encoder that gives the sum of its token numbers: class n gets n + 1 times as much."""
    onnx = pytest.importorskip("onnx")
    import numpy as np
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    helper = onnx.helper
    names = ["input_ids", "attention_mask", "token_type_ids"][:inputs]
    given = [
        helper.make_tensor_value_info(name, onnx.TensorProto.INT64, ["batch", "tokens"])
        for name in names
    ]
    out = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", classes])
    scale = np.arange(1, classes + 1, dtype=np.float32)[None, :]
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["real"], to=onnx.TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["real", "axes"], ["sum"], keepdims=1),
        helper.make_node("Mul", ["sum", "scale"], ["logits"]),
    ]
    kept = [
        helper.make_tensor("axes", onnx.TensorProto.INT64, [1], [1]),
        helper.make_tensor("scale", onnx.TensorProto.FLOAT, [1, classes], scale.ravel()),
    ]
    graph = helper.make_graph(nodes, "tiny", given, [out], kept)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(folder / MODEL))
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 1), ("</s>", 2)],
    )
    tokenizer.enable_truncation(4)  # as many are saved; ours must not cut
    tokenizer.save(str(folder / TOKENIZER))
    return folder
