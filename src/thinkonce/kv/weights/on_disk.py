"""A model's files, looked at without loading them: are they all there and whole, what will it take.

Nothing here needs torch, so `doctor` can ask it in a moment. What only loading can tell is left to
loading: a directory that is content here may still be one that transformers cannot read.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import msgspec

from thinkonce.errors import ConfigError
from thinkonce.kv.weights import packaged
from thinkonce.settings import data_folder

__all__ = ("ModelFiles", "converted_files", "directory_of", "model_files")

# In the order in which transformers looks for them.
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_INDEX = ".index.json"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json")
_SIZES = {"F32": 4, "BF16": 2, "F16": 2, "F64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
_MOST_HEAD = 100 * 2**20  # bytes; the format's own bound


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """`config` as the file says it, of a model with several the one of its text. `parameters`, and
    bytes of one as stored (`stored`), are 0 where weights are in a form that is not looked into.
    """

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    parameters: int = 0
    stored: int = 0

    @property
    def family(self) -> str:
        return str(self.config.get("model_type", ""))

    @property
    def context_tokens(self) -> int:
        """0 where the file does not say."""
        return _number(self.config, "max_position_embeddings")

    def bytes_a_number(self, dtype: str) -> int:
        """As loaded; `dtype` "auto": as stored. 0 where that is not known."""
        return self.stored if dtype == "auto" else _SIZES.get(dtype, 0)

    def bytes_a_token(self, dtype: str) -> int:
        """Of attention state, before any codec; 0 where that cannot be told."""
        config, heads = self.config, _number(self.config, "num_attention_heads")
        hidden, layers = _number(config, "hidden_size"), _number(config, "num_hidden_layers")
        if not (heads and layers):
            return 0
        width = _number(config, "head_dim") or hidden // heads
        shared = _number(config, "num_key_value_heads") or heads
        return 2 * layers * shared * width * self.bytes_a_number(dtype)


def directory_of(name: str) -> Path | None:
    """Where the files of a directory, or of `owner/name` in the local hub cache, lie; None for
    what is neither. Nothing is downloaded.
    """
    if (path := Path(name).expanduser()).is_dir():
        return path
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return None
    cached = _hub() / f"models--{name.replace('/', '--')}"
    try:
        commit = (cached / "refs" / "main").read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    found = cached / "snapshots" / commit
    return found if found.is_dir() else None


def model_files(folder: Path) -> ModelFiles:
    """Raises ConfigError that names the file which is missing, unreadable or cut off."""
    config = _json(folder / "config.json", folder)
    weights = list(_weight_files(folder))
    for path in weights:
        _check_readable(path)
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        raise _wrong(folder, f"a tokenizer; there is none of {', '.join(_TOKENIZERS)}")
    counted: Counter[int] = Counter()
    for path in weights:
        if path.suffix == ".safetensors":
            counted.update(_parameters(path))
    stored = counted.most_common(1)[0][0] if counted else 0
    text = config.get("text_config")
    told = text if isinstance(text, dict) else config
    return ModelFiles(folder, told, counted.total(), stored)


def converted_files(model: packaged.PackagedModel) -> ModelFiles | None:
    """Of a packaged model that was started here before, else None. Raises as `model_files`."""
    folder = data_folder() / "models" / model.folder_name
    return model_files(folder) if folder.is_dir() else None


def _weight_files(folder: Path) -> Iterator[Path]:
    for name in _WEIGHTS:
        if (folder / name).exists():
            yield folder / name
            return
        if (folder / (name + _INDEX)).exists():
            index = _json(folder / (name + _INDEX), folder)
            names = index.get("weight_map")
            if not isinstance(names, dict) or not names:
                raise _wrong(folder, f"a {name}{_INDEX} that names files of weights")
            yield from (folder / str(each) for each in sorted(set(names.values())))
            return
    raise _wrong(folder, f"weights; there is none of {', '.join(_WEIGHTS)}, whole or in parts")


def _check_readable(path: Path) -> None:
    if not path.is_file():
        raise _wrong(path.parent, f"weights that are complete; {path.name} is missing")
    if not os.access(path, os.R_OK):
        raise _wrong(path.parent, f"weights that this user may read; {path.name} cannot be")


def _parameters(path: Path) -> Counter[int]:
    """By their size in bytes. The file's head says where it ends, so half a download shows."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            head = file.read(size) if size <= _MOST_HEAD else b""
            total = file.seek(0, os.SEEK_END)
        tensors = msgspec.json.decode(head, type=dict[str, Any])
        tensors.pop("__metadata__", None)
        end = 8 + size + max((each["data_offsets"][1] for each in tensors.values()), default=0)
        found: Counter[int] = Counter()
        for each in tensors.values():
            found[_SIZES.get(each["dtype"], 1)] += prod(each["shape"])
    except (OSError, msgspec.DecodeError, KeyError, TypeError, IndexError) as error:
        raise _wrong(path.parent, f"weights that can be read ({path.name}: {error})") from None
    if total < end:
        raise _wrong(path.parent, f"weights that are whole; {path.name} has {total} of {end} bytes")
    return found


def _json(path: Path, folder: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except FileNotFoundError:
        raise _wrong(folder, "a directory that holds config.json and weights") from None
    except (OSError, msgspec.DecodeError) as error:
        raise _wrong(folder, f"a {path.name} that can be read ({error})") from None


def _hub() -> Path:
    """Where Hugging Face's libraries keep what they downloaded."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if given := os.environ.get(variable):
            return Path(given).expanduser()
    if home := os.environ.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "huggingface" / "hub"


def _number(config: dict[str, Any], name: str) -> int:
    value = config.get(name)
    return value if isinstance(value, int) else 0


def _wrong(folder: Path, accepts: str) -> ConfigError:
    return ConfigError("[local] model", str(folder), accepts)
