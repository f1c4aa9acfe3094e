"""A cross-encoder as ONNX and its tokenizer, from a folder: what ships, or a user's own.

One pair a call and one thread: pairs are short, and cores are for answering.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from thinkonce.errors import ConfigError
from thinkonce.meaning.native import refuse_after_usearch
from thinkonce.meaning.verdict.verifier import (
    CALIBRATION,
    MODEL,
    TOKENIZER,
    Scales,
    VerifierError,
    read_scales,
)

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from tokenizers import Tokenizer

__all__ = ("LONGEST", "Exported", "files_digest", "one_logit", "verifier")

LONGEST = 128  # tokens of a pair; what is longer was not trained on


def verifier(folder: Path) -> Exported:
    """Raises ConfigError where a package or a file is missing, or does not fit."""
    refuse_after_usearch("semantic.verifier", str(folder))
    try:
        import onnxruntime
        from tokenizers import Tokenizer
    except ImportError as error:
        accepts = "another verifier, or pip install 'thinkonce[semantic]'"
        raise ConfigError("semantic.verifier", str(folder), accepts) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; they are raised as well
    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        session = onnxruntime.InferenceSession(
            str(folder / MODEL), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # each package has errors of its own
        accepts = f"a folder with a {MODEL} and {TOKENIZER} that load ({error})"
        raise ConfigError("semantic.verifier", str(folder), accepts) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    found = Exported(session, tokenizer, f"{folder.name}-{_digest(folder)}", read_scales(folder))
    try:
        found.logit("a", "b")
    except Exception as error:  # other inputs than a cross-encoder's, or more classes
        raise ConfigError("semantic.verifier", str(folder), f"a cross-encoder: {error}") from error
    return found


class Exported:
    """A `Verifier`. One output is a logit, two are those of no and yes."""

    concurrency, patience = 1, 0.2

    def __init__(
        self, session: InferenceSession, tokenizer: Tokenizer, name: str, scales: Scales
    ) -> None:
        self._session, self._tokenizer = session, tokenizer
        self._inputs = [one.name for one in session.get_inputs()]
        self.name, self.scales = name, scales

    def logit(self, asked: str, stored: str) -> float | None:
        found = self._tokenizer.encode(asked, stored)
        if len(found.ids) > LONGEST:
            return None
        known = {
            "input_ids": found.ids,
            "attention_mask": found.attention_mask,
            "token_type_ids": found.type_ids,
        }
        feed = {name: np.array([known[name]], dtype=np.int64) for name in self._inputs}
        return one_logit(self._session.run(None, feed)[0])

    def close(self) -> None:
        """Nothing to give back."""


def one_logit(output: Any) -> float:
    """Of what a classifier gives for one pair. Raises VerifierError for more than two classes."""
    values = [float(value) for value in output.reshape(-1)]
    if len(values) == 1:
        return values[0]
    if len(values) == 2:
        return values[1] - values[0]
    raise VerifierError(f"{len(values)} classes; one or two (no, yes) would work")


def files_digest(files: Iterable[Path]) -> str:
    """16 hex digits, of those that exist."""
    whole = hashlib.blake2b(digest_size=8)
    for file in files:
        if file.is_file():
            with file.open("rb") as opened:
                whole.update(hashlib.file_digest(opened, hashlib.blake2b).digest())
    return whole.hexdigest()


def _digest(folder: Path) -> str:
    """Of the files that decide what is said."""
    return files_digest(folder / name for name in (MODEL, TOKENIZER, CALIBRATION))
