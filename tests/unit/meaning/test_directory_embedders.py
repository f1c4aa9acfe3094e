"""A directory of sentence-transformers as an embedder, with a stand-in for that package.

The stand-in has only what releases 3 to 6 have in common.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from thinkonce.errors import ConfigError
from thinkonce.meaning.embedders.embedder import open_embedder

BEGINNING = bytes(2 << 20)  # models of one family often begin alike


class SentenceTransformer:
    def __init__(self, folder: str, *, device: str, local_files_only: bool) -> None:
        assert device == "cpu"
        assert local_files_only
        self.folder = folder

    def encode(self, texts: Sequence[str], **_: bool) -> Any:
        return np.array([[len(text), 1, 0] for text in texts], np.float32)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("sentence_transformers")
    monkeypatch.setattr(module, "SentenceTransformer", SentenceTransformer, raising=False)
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)


def model(folder: Path, weights: bytes = BEGINNING) -> str:
    folder.mkdir()
    (folder / "modules.json").write_text("[]")
    (folder / "model.safetensors").write_bytes(weights)
    return str(folder)


@pytest.mark.usefixtures("package")
def test_a_directory_gives_vectors_of_length_one(tmp_path: Path) -> None:
    embedder = open_embedder(model(tmp_path / "a"))
    rows = embedder.embed(["one", "another"])
    assert rows.shape == (2, embedder.dimensions) == (2, 3)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1)
    embedder.close()


@pytest.mark.usefixtures("package")
def test_its_name_is_made_of_all_of_its_weights_wherever_they_lie(tmp_path: Path) -> None:
    here = open_embedder(model(tmp_path / "a"))
    there = open_embedder(model(tmp_path / "b"))
    tuned = open_embedder(model(tmp_path / "c", BEGINNING + b"\1"))
    tuned_again = open_embedder(model(tmp_path / "d", BEGINNING + b"\2"))
    assert here.name == there.name
    assert len({here.name, tuned.name, tuned_again.name}) == 3


def test_without_the_package_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ConfigError, match="pip install sentence-transformers"):
        open_embedder(model(tmp_path / "a"))


def test_a_directory_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"modules\.json"):
        open_embedder(str(tmp_path))
