"""Which models' attention state may be reused, and what of a loaded one it depends on.

What is not one of `FAMILIES`, or is run in a way that was not shown to give equal bits, is served
without reuse, and says so.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import torch
import transformers
from blake3 import blake3

from thinkonce.kv.generation.families import FAMILIES
from thinkonce.kv.generation.slab import KvShape
from thinkonce.kv.prefix.fingerprint import Fingerprint

__all__ = ("FAMILIES", "fingerprint_of", "shape_of", "unsupported")

_ATTENTION = ("sdpa", "eager")
_DTYPES = (torch.float32, torch.bfloat16)
_DEVICES = ("cpu", "cuda")  # the latter must pass `probe` too
# Rotations that depend on the position alone. "dynamic" and "longrope" turn by the length of
# what was read last, so keys of one prefix differ from prompt to prompt.
_ROPE = ("default", "linear", "llama3", "yarn")
# Of a configuration, what says where it came from and not what is computed.
_NO_MATTER = ("_name_or_path", "architectures", "transformers_version")


def unsupported(network: Any) -> str | None:
    """Why this model's attention state is not reused; None where it is."""
    config = network.config
    if config.model_type not in FAMILIES:
        return f"architecture {config.model_type!r} is not one of {', '.join(FAMILIES)}"
    if (attention := config._attn_implementation) not in _ATTENTION:
        return f"attention {attention!r} is not one of {', '.join(_ATTENTION)}"
    if network.dtype not in _DTYPES or network.device.type not in _DEVICES:
        return f"{network.dtype} on {network.device.type} has not been shown to give equal bits"
    for kind in _rope_types(config):
        if kind not in _ROPE:
            return f"rotary embedding {kind!r} depends on the length of the prompt"
    if getattr(network, "_hf_peft_config_loaded", False):
        return "the model has adapters attached; merge them into its weights"
    if network.training:
        return "the model is in training mode"
    return None


def shape_of(network: Any) -> KvShape:
    """The keys and values of a supported model."""
    config = network.config
    heads = config.num_attention_heads
    return KvShape(
        layers=config.num_hidden_layers,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        dtype=network.dtype,
        device=network.device,
    )


def fingerprint_of(
    network: Any, tokenizer: Any, chunk_tokens: int, codec: str = "raw"
) -> Fingerprint:
    """Reads every weight once: about a second a gigabyte on one core, less on several."""
    config = network.config
    described = {name: value for name, value in config.to_dict().items() if name not in _NO_MATTER}
    return Fingerprint(
        weights=_weights_digest(network),
        config=_text(described),
        dtype=str(network.dtype),
        rope=_text(getattr(config, "rope_parameters", None)),
        attention=_attention(config),
        chunk_tokens=chunk_tokens,
        tokenizer=_tokenizer_digest(tokenizer),
        runtime=_runtime(network),
        codec=codec,
    )


def _rope_types(config: Any) -> Iterator[str]:
    """Of all layers: they may have one table, or one for each type of layer."""
    table = getattr(config, "rope_parameters", None) or {}
    for rope in (table, *(each for each in table.values() if isinstance(each, dict))):
        if "rope_type" in rope:
            yield rope["rope_type"]


def _weights_digest(network: Any) -> str:
    """BLAKE3 of every parameter and buffer with its name, type and shape, tied ones once."""
    hashed = blake3(max_threads=blake3.AUTO)
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    for name, tensor in sorted(tensors.items()):
        hashed.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        if flat.numel():
            hashed.update(flat.view(torch.uint8).numpy())
    return hashed.hexdigest()


def _tokenizer_digest(tokenizer: Any) -> str:
    """Of the vocabulary and its rules where the tokenizer can tell them, and of the template."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend is not None else _text(tokenizer.get_vocab())
    template = _text(getattr(tokenizer, "chat_template", None))
    return blake3(f"{len(rules)}|{rules}|{template}".encode()).hexdigest()


def _attention(config: Any) -> str:
    # transformers reads this variable at each call, and takes another kernel for it.
    forced = os.environ.get("TRANSFORMERS_SDPA_FORCE_GQA", "0") == "1"
    return str(config._attn_implementation) + ("+gqa" if forced else "")


def _runtime(network: Any) -> str:
    device = network.device.type
    if device == "cpu":
        device += f" {torch.backends.cpu.get_cpu_capability()}"
    elif device == "cuda":
        device += f" {torch.cuda.get_device_name(network.device)}"
    precision = torch.get_float32_matmul_precision()
    versions = f"torch {torch.__version__} transformers {transformers.__version__}"
    return f"{versions} {device} {precision}"


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)
