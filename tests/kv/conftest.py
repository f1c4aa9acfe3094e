"""Fixtures around the small model of `small_model.py`; what benchmarks share is found too."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from openai import OpenAI
from small_model import Serve, Served, client_of, make_network, make_tokenizer, serving

from thinkonce.kv.weights.model import Model, load

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = make_tokenizer()
    make_network(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model(model_folder: Path) -> Model:
    return load(str(model_folder))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Of PyTorch, whose sums depend on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def serve(model: Model) -> Iterator[Serve]:
    """Start servers of the small model, or of another; they end with the test."""
    with ExitStack() as stack:

        def start(other: Model | None = None, **options: object) -> Served:
            return stack.enter_context(serving(other or model, **options))  # type: ignore[arg-type]

        yield start


@pytest.fixture
def served(serve: Serve) -> Served:
    return serve()


@pytest.fixture
def client(served: Served) -> Iterator[OpenAI]:
    with client_of(served) as client:
        yield client
