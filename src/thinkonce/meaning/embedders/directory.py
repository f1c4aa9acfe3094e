"""Any model in the layout of sentence-transformers, from a directory on this machine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from thinkonce.errors import ConfigError
from thinkonce.meaning.embedders.embedder import Vectors, embeddable, unit_rows

__all__ = ("embedder",)

# What a model is loaded from. Two of one family may begin alike, so files are read whole: a second
# for a gigabyte, and loading takes longer.
_MADE_OF = frozenset({".bin", ".json", ".model", ".safetensors", ".txt"})


def embedder(directory: str) -> Directory:
    """Raises ConfigError where there is no such model, or nothing to run it with."""
    path = Path(directory).expanduser()
    if not (path / "modules.json").is_file():
        accepts = "a directory that holds modules.json, as sentence-transformers saves models"
        raise ConfigError("semantic.embedder", directory, accepts)
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        accepts = "another embedder, or pip install sentence-transformers"
        raise ConfigError("semantic.embedder", directory, accepts) from error
    model = SentenceTransformer(str(path), device="cpu", local_files_only=True)
    return Directory(model, f"directory-{_digest(path)}")


class Directory:
    """An `Embedder`. Its name is made of the model's files, wherever they lie."""

    family = ""
    concurrency = 1

    def __init__(self, model: Any, name: str) -> None:
        self._model, self.name = model, name
        self.dimensions = 0
        self.dimensions = self.embed(["a"]).shape[1]  # what tells it has two names, by release

    def embed(self, texts: Sequence[str]) -> Vectors:
        clean = [embeddable(text) for text in texts]
        found = self._model.encode(clean, show_progress_bar=False, convert_to_numpy=True)
        return unit_rows(found, len(texts), self.dimensions)

    def close(self) -> None:
        """Nothing to give back."""


def _digest(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(path.rglob("*")):
        if file.suffix in _MADE_OF and file.is_file():
            with file.open("rb") as opened:
                whole = hashlib.file_digest(opened, hashlib.blake2b).hexdigest()
            digest.update(f"{file.relative_to(path)} {whole}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
