"""A GGUF file read back: the same tensors, the same tokens, the same logits."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from small_gguf import tensors_of, write_gguf
from small_model import TEXTS, make_tokenizer

from thinkonce.errors import ConfigError
from thinkonce.kv.weights.gguf import GgufFile


def test_every_tensor_comes_back_bit_for_bit(tmp_path: Path) -> None:
    network = write_gguf(tmp_path / "small.gguf")
    heard: list[float] = []
    weights = GgufFile(tmp_path / "small.gguf").weights(heard.append)
    expected = network.state_dict()
    assert weights.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(weights[name], tensor), name
    assert heard == sorted(heard)
    assert heard[-1] == 1.0


@pytest.mark.parametrize("kind", [Kind.Q4_1, Kind.Q8_0])
def test_quantised_tensors_come_back_as_their_dequantised_selves(
    tmp_path: Path, kind: Kind
) -> None:
    network = write_gguf(tmp_path / "small.gguf", kind)
    weights = GgufFile(tmp_path / "small.gguf").weights(lambda fraction: None)
    name, row = next((n, t) for n, t in tensors_of(network) if n == "blk.1.ffn_up.weight")
    expected = gguf.quants.dequantize(gguf.quants.quantize(row, kind), kind)
    assert torch.equal(weights["model.layers.1.mlp.up_proj.weight"], torch.from_numpy(expected))
    assert (expected != row).any(), f"{name} must have lost something, or this shows nothing"


def test_the_config_describes_the_network_it_came_from(tmp_path: Path) -> None:
    expected = write_gguf(tmp_path / "small.gguf").config.to_dict()
    found = GgufFile(tmp_path / "small.gguf").config().to_dict()
    # No field of a GGUF file, rounded there, or only set when a network is saved.
    for field in ("initializer_range", "rms_norm_eps", "dtype", "architectures"):
        expected.pop(field, None)
        found.pop(field, None)
    assert found == expected


def test_the_tokenizer_cuts_and_joins_as_the_original(tmp_path: Path) -> None:
    write_gguf(tmp_path / "small.gguf")
    found, original = GgufFile(tmp_path / "small.gguf").tokenizer(), make_tokenizer()
    for text in (*TEXTS, "<|im_start|>user\nhi<|im_end|>", "a  b\n\n", "2026"):
        ids = original(text)["input_ids"]
        assert found(text)["input_ids"] == ids
        assert found.decode(ids) == text
    assert found.chat_template == original.chat_template
    assert (found.bos_token_id, found.eos_token_id) == (1, 2)


@pytest.mark.parametrize(
    ("changes", "named"), [({"architecture": "gpt3"}, "gpt3"), ({"pre": "other"}, "other")]
)
def test_a_file_of_another_family_is_refused_by_name(
    tmp_path: Path, changes: dict[str, str], named: str
) -> None:
    write_gguf(tmp_path / "small.gguf", **changes)
    with pytest.raises(ConfigError, match=named):
        GgufFile(tmp_path / "small.gguf")


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "small.gguf").write_bytes(b"not a model" * 100)
    with pytest.raises(ConfigError, match="a GGUF file"):
        GgufFile(tmp_path / "small.gguf")
