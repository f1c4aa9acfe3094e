"""Loading a model: what is found, what is refused, and what the refusal says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from thinkonce.errors import ConfigError
from thinkonce.kv.weights.model import load


@pytest.fixture
def copy(model_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_folder, tmp_path / "copy"))


def test_a_directory_is_loaded_under_its_name(model_folder: Path) -> None:
    model = load(str(model_folder))
    assert model.name == "tiny"
    assert model.context_tokens == 2048
    assert model.end_ids == {2}
    assert model.vocabulary == 400
    assert (model.temperature, model.top_p, model.top_k) == (1.0, 1.0, 0)
    assert model.network.dtype == torch.float32
    assert not model.network.training


def test_a_dtype_is_taken_as_asked(model_folder: Path) -> None:
    assert load(str(model_folder), dtype="bfloat16").network.dtype == torch.bfloat16
    with pytest.raises(ConfigError, match=r"dtype='int3'.*bfloat16"):
        load(str(model_folder), dtype="int3")


def test_every_place_that_names_an_end_counts(copy: Path) -> None:
    settings = json.loads((copy / "generation_config.json").read_text())
    settings |= {"eos_token_id": [0, 2], "temperature": 0.3, "top_k": 7, "do_sample": True}
    (copy / "generation_config.json").write_text(json.dumps(settings))
    model = load(str(copy))
    assert model.end_ids == {0, 2}
    assert (model.temperature, model.top_k) == (0.3, 7)


def test_an_unknown_name_lists_what_is_known_and_how_to_install() -> None:
    with pytest.raises(ConfigError) as caught:
        load("GPT-9")
    for part in ("GPT-9", "SmolLM2-135M-Instruct", "thinkonce model install", "config.json"):
        assert part in str(caught.value)


def test_a_hub_name_is_looked_up_on_this_machine_only() -> None:
    with pytest.raises(ConfigError, match="hub cache"):
        load("nobody/no-such-model")


def test_a_directory_without_a_config_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json"):
        load(str(tmp_path))


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_directory_that_lacks_a_part_is_refused(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(ConfigError, match="what transformers can load"):
        load(str(copy))


def test_cut_weights_are_refused(copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ConfigError, match="what transformers can load"):
        load(str(copy))


def test_weights_that_lack_a_tensor_are_refused_not_made_up(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    missing = "model.layers.1.mlp.up_proj.weight"
    weights.pop(missing)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=missing):
        load(str(copy))
