"""Reads a GGUF file of the Llama family into what transformers loads, in one pass.

transformers has a GGUF loader of its own; it re-parses the vocabulary several times and needs
tens of seconds for a model of 100 MB. This one reads the header once and gives the same
tensors bit for bit. Names and layout: the GGUF specification of the ggml project.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, PreTrainedTokenizerFast

from thinkonce.errors import ConfigError

__all__ = ("GgufFile",)

_TENSOR_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}

# `tokenizer.ggml.token_type` of ordinary text; every other type is a control token.
_NORMAL_TOKEN = 1


class GgufFile:
    """One open GGUF file. Reading is lazy: a tensor is dequantised when it is asked for."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError where the file is no GGUF, or none this reader knows."""
        self.path = path
        try:
            self._reader = GGUFReader(path)
        except (OSError, ValueError) as broken:
            raise ConfigError("model", str(path), f"a GGUF file ({broken})") from broken
        self._require("general.architecture", "llama")
        self._require("tokenizer.ggml.model", "gpt2")
        self._require("tokenizer.ggml.pre", "smollm")

    def field(self, name: str, default: Any = None) -> Any:
        """The value of a header field, `default` where the file has none."""
        found = self._reader.fields.get(name)
        return default if found is None else found.contents()

    def _require(self, name: str, known: str) -> None:
        if (value := self.field(name)) != known:
            raise ConfigError(f"{self.path.name}: {name}", value, f"{known!r}")

    def config(self) -> Any:
        """The transformers LlamaConfig of the header's `llama.*` fields."""
        heads = self.field("llama.attention.head_count")
        width = self.field("llama.embedding_length")
        return LlamaConfig(
            architectures=["LlamaForCausalLM"],
            num_hidden_layers=self.field("llama.block_count"),
            hidden_size=width,
            intermediate_size=self.field("llama.feed_forward_length"),
            num_attention_heads=heads,
            num_key_value_heads=self.field("llama.attention.head_count_kv", heads),
            head_dim=self.field("llama.rope.dimension_count", width // heads),
            vocab_size=len(self.field("tokenizer.ggml.tokens")),
            max_position_embeddings=self.field("llama.context_length"),
            rms_norm_eps=self.field("llama.attention.layer_norm_rms_epsilon"),
            rope_parameters={
                "rope_type": "default",
                "rope_theta": self.field("llama.rope.freq_base", 10_000.0),
            },
            tie_word_embeddings=all(t.name != "output.weight" for t in self._reader.tensors),
            dtype="float32",
            **self._special_ids(),
        )

    def generation_config(self, temperature: float, top_p: float) -> Any:
        """What a request that says nothing gets."""
        return GenerationConfig(
            do_sample=True, temperature=temperature, top_p=top_p, **self._special_ids()
        )

    def _special_ids(self) -> dict[str, int | None]:
        return {
            "bos_token_id": self.field("tokenizer.ggml.bos_token_id"),
            "eos_token_id": self.field("tokenizer.ggml.eos_token_id"),
            "pad_token_id": self.field("tokenizer.ggml.padding_token_id"),
        }

    def weights(self, report: Callable[[float], None]) -> dict[str, torch.Tensor]:
        """Every tensor in fp32 under transformers' name; `report` gets the fraction done."""
        tensors = self._reader.tensors
        weights = {}
        for done, tensor in enumerate(tensors, start=1):
            name = _transformers_name(tensor.name)
            values = dequantize(tensor.data, tensor.tensor_type)
            # fp32 tensors come as a read-only view of the mapped file; those are copied.
            writable = torch.from_numpy(np.require(values, requirements=["C", "W"]))
            weights[name] = self._unpermuted(name, writable).contiguous()
            report(done / len(tensors))
        return weights

    def _unpermuted(self, name: str, values: torch.Tensor) -> torch.Tensor:
        """Undo the row order of rotary halves that GGUF uses for queries and keys.

        rows of one head:  GGUF          pair 0 (a, b), pair 1 (a, b), ...
                           transformers  all a of the head, then all b
        """
        if name.endswith("q_proj.weight"):
            heads = self.field("llama.attention.head_count")
        elif name.endswith("k_proj.weight"):
            heads = self.field("llama.attention.head_count_kv")
        else:
            return values
        rows, columns = values.shape
        pairs = values.view(heads, rows // heads // 2, 2, columns)
        return pairs.swapaxes(1, 2).reshape(rows, columns)

    def tokenizer(self) -> Any:
        """The byte-level BPE tokenizer and chat template of the `tokenizer.*` fields."""
        tokens = self.field("tokenizer.ggml.tokens")
        merges = [tuple(pair.split(" ")) for pair in self.field("tokenizer.ggml.merges")]
        vocabulary = {token: number for number, token in enumerate(tokens)}
        backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), _byte_level()]
        )
        backend.decoder = decoders.ByteLevel()
        kinds = self.field("tokenizer.ggml.token_type")
        special = [t for t, kind in zip(tokens, kinds, strict=True) if kind != _NORMAL_TOKEN]
        backend.add_special_tokens([AddedToken(t, normalized=False) for t in special])
        return PreTrainedTokenizerFast(
            tokenizer_object=backend,
            clean_up_tokenization_spaces=False,
            chat_template=self.field("tokenizer.chat_template"),
            model_max_length=self.field("llama.context_length"),
            **self._special_tokens(tokens),
        )

    def _special_tokens(self, tokens: list[str]) -> dict[str, str]:
        fields = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
        ids = {role: self.field(f"tokenizer.ggml.{f}_token_id") for role, f in fields.items()}
        return {f"{role}_token": tokens[i] for role, i in ids.items() if i is not None}


def _byte_level() -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _transformers_name(name: str) -> str:
    """`blk.3.attn_q.weight` -> `model.layers.3.self_attn.q_proj.weight`."""
    stem, _, kind = name.rpartition(".")
    prefix = ""
    if stem.startswith("blk."):
        _, layer, stem = stem.split(".", 2)
        prefix = f"model.layers.{layer}."
    if stem not in _TENSOR_NAMES:
        raise ConfigError("tensor", name, "one of " + ", ".join(_TENSOR_NAMES))
    return f"{prefix}{_TENSOR_NAMES[stem]}.{kind}"
