"""A user's own cross-encoder, as transformers or sentence-transformers saves one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from thinkonce.errors import ConfigError
from thinkonce.meaning.verdict.verifier import CALIBRATION, Scales, read_scales
from thinkonce.meaning.verifiers.exported import LONGEST, files_digest, one_logit

__all__ = ("Transformer", "verifier")

_WEIGHTS = "model.safetensors"


def verifier(folder: Path) -> Transformer:
    """Raises ConfigError where there is no such model, or nothing to run it with."""
    if not (folder / _WEIGHTS).is_file() or not (folder / "config.json").is_file():
        accepts = f"a directory with model.onnx, or with {_WEIGHTS} and config.json"
        raise ConfigError("semantic.verifier", str(folder), accepts)
    try:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer
    except ImportError as error:
        accepts = "another verifier, or pip install 'thinkonce[local]'"
        raise ConfigError("semantic.verifier", str(folder), accepts) from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        accepts = f"a directory that loads ({error})"
        raise ConfigError("semantic.verifier", str(folder), accepts) from error
    files = (folder / name for name in ("config.json", _WEIGHTS, "tokenizer.json", CALIBRATION))
    name = f"{folder.name}-{files_digest(files)}"
    found = Transformer(model.eval(), tokenizer, name, read_scales(folder))
    try:
        found.logit("a", "b")
    except Exception as error:
        raise ConfigError("semantic.verifier", str(folder), f"a cross-encoder: {error}") from error
    return found


class Transformer:
    """A `Verifier`. One output is a logit, two are those of no and yes."""

    concurrency, patience = 1, 0.5

    def __init__(self, model: Any, tokenizer: Any, name: str, scales: Scales) -> None:
        self._model, self._tokenizer = model, tokenizer
        self.name, self.scales = name, scales

    def logit(self, asked: str, stored: str) -> float | None:
        import torch

        tokens = self._tokenizer(asked, stored, return_tensors="pt")
        if tokens["input_ids"].shape[1] > LONGEST:
            return None
        with torch.inference_mode():
            return one_logit(self._model(**tokens).logits)

    def close(self) -> None:
        """Nothing to give back."""
