"""Loads a model: a packaged one by name, any other from a directory or the local hub cache."""

from __future__ import annotations

import contextlib
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import cached_file
from transformers.utils import logging as transformers_logging

from thinkonce.errors import MISSING, ConfigError
from thinkonce.kv.weights import packaged
from thinkonce.kv.weights.conversion import convert, converted
from thinkonce.kv.weights.gguf import GgufFile
from thinkonce.kv.weights.packaged import PackagedModel, Progress
from thinkonce.settings import data_folder

__all__ = ("DEVICES", "DTYPES", "Model", "load")

_logger = logging.getLogger("thinkonce.kv")

DTYPES = ("auto", "float32", "bfloat16", "float16")
DEVICES = ("cpu", "cuda")


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded model and what the server needs to know about it.

    `network` is a transformers model in evaluation mode, `context_tokens` how many tokens
    prompt and answer may have together, `end_ids` the tokens that end an answer; the rest is
    what a request gets that says nothing.
    """

    name: str
    network: Any
    tokenizer: Any
    context_tokens: int
    end_ids: frozenset[int]
    temperature: float
    top_p: float
    top_k: int

    @property
    def vocabulary(self) -> int:
        """How many logits a step has; the tokenizer may know fewer tokens."""
        return int(self.network.get_output_embeddings().weight.shape[0])


def load(
    name: str | None = None,
    *,
    dtype: str = "auto",
    device: str = "cpu",
    progress: Progress | None = None,
) -> Model:
    """Load a packaged model's name, a directory, or `owner/name` from the local hub cache.

    None is the packaged default. `dtype` is one of DTYPES; "auto" keeps what the weights are
    in. `device` is torch's name of one, such as "cpu" or "cuda:1". Nothing is downloaded. Raises
    ConfigError, which says what to do.
    """
    place = _device(device)
    if dtype not in DTYPES:
        raise ConfigError("dtype", dtype, "one of " + ", ".join(DTYPES))
    transformers_logging.disable_progress_bar()
    report = progress or packaged.silent
    wanted = name or packaged.DEFAULT
    loaded = _loaded(wanted, dtype, report)
    if place.type != "cpu":
        report(f"moving {loaded.name} to {place}", None)
        loaded.network.to(place)
    return loaded


def _loaded(wanted: str, dtype: str, report: Progress) -> Model:
    # A directory of that name is what the user sees in front of them: it goes first.
    if (path := Path(wanted).expanduser()).is_dir():
        return _from_directory(path.resolve().name, path, dtype, report)
    if model := packaged.find(wanted):
        return _from_package(model, dtype, report)
    return _from_directory(wanted, _hub_snapshot(wanted), dtype, report)


def _device(name: str) -> torch.device:
    """Raises ConfigError for one that torch does not know, or that this machine does not have."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except Exception as failed:  # RuntimeError, AssertionError, NotImplementedError: it depends
        accepts = "cpu, or cuda (cuda:1, ...) where torch was built for it and sees a GPU"
        raise ConfigError("device", name, accepts) from failed
    if device.type not in DEVICES:
        raise ConfigError("device", name, "one of " + ", ".join(DEVICES))
    return device


def _from_package(model: PackagedModel, dtype: str, report: Progress) -> Model:
    folder = data_folder() / "models"
    if place := converted(model, folder):
        return _from_directory(model.name, place, dtype, report)
    if (source := packaged.locate(model)) is None:
        accepts = f"`thinkonce model install {model.name}` first"
        raise ConfigError(f"the packaged model {model.name}", MISSING, accepts)
    try:
        place = convert(model, source, folder, report)
    except OSError as failed:
        _logger.warning("%s cannot hold a converted model, reading it anew: %s", folder, failed)
        return _from_gguf(model, source, dtype, report)
    return _from_directory(model.name, place, dtype, report)


def _from_gguf(model: PackagedModel, source: Path, dtype: str, report: Progress) -> Model:
    gguf = GgufFile(source)
    weights = gguf.weights(lambda fraction: report(f"reading {model.name}", fraction))
    config = gguf.config()
    network = AutoModelForCausalLM.from_config(config)
    network.load_state_dict(weights, strict=False, assign=True)
    network.tie_weights()
    network.generation_config = gguf.generation_config(model.temperature, model.top_p)
    if dtype != "auto":
        network = network.to(getattr(torch, dtype))
    return _model(model.name, network.eval(), gguf.tokenizer())


def _hub_snapshot(name: str) -> Path:
    """Where the local hub cache keeps `owner/name`; never asks the network."""
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        # It raises OSError where the cache does not hold the file.
        with contextlib.suppress(OSError):
            return Path(cached_file(name, "config.json", local_files_only=True)).parent
    raise ConfigError(
        "model",
        name,
        f"a packaged model ({', '.join(packaged.names())}; `thinkonce model install NAME` "
        "installs one), a directory with config.json and weights, or owner/name of a model "
        "in this machine's hub cache",
    )


def _from_directory(name: str, path: Path, dtype: str, report: Progress) -> Model:
    if not (path / "config.json").is_file():
        raise ConfigError("model", str(path), "a directory that holds config.json and weights")
    report(f"loading {name}", None)
    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True)
        network, found = AutoModelForCausalLM.from_pretrained(
            path, config=config, dtype=dtype, local_files_only=True, output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except Exception as failed:  # transformers raises whatever its many readers raise
        raise ConfigError("model", str(path), f"what transformers can load ({failed})") from failed
    if missing := sorted(found["missing_keys"]):
        # transformers would fill them with random numbers and go on.
        raise ConfigError("model", str(path), f"weights that are complete; {missing[0]} is missing")
    return _model(name, network.eval(), tokenizer)


def _model(name: str, network: Any, tokenizer: Any) -> Model:
    text = network.config.get_text_config()
    defaults = network.generation_config
    context = getattr(text, "max_position_embeddings", None) or tokenizer.model_max_length
    return Model(
        name=name,
        network=network,
        tokenizer=tokenizer,
        context_tokens=int(context),
        end_ids=_end_ids(defaults.eos_token_id, text.eos_token_id, tokenizer.eos_token_id),
        temperature=_or(defaults.temperature, 1.0),
        top_p=_or(defaults.top_p, 1.0),
        top_k=int(_or(defaults.top_k, 0)),
    )


def _end_ids(*sources: int | list[int] | None) -> frozenset[int]:
    """All the ids named by any of the places where a model may say what ends an answer."""
    ids: set[int] = set()
    for source in sources:
        if source is not None:
            ids.update([source] if isinstance(source, int) else source)
    return frozenset(ids)


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
