"""How attention state is kept: as computed or in eight bits, and never one for the other."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_model import Serve

from thinkonce import ConfigError
from thinkonce.kv.embedded import Engine
from thinkonce.kv.engine import open_engine
from thinkonce.kv.generation.codecs.choice import CODECS, codec_of
from thinkonce.kv.generation.codecs.codec import Codec, bytes_of
from thinkonce.kv.generation.codecs.int8 import Int8
from thinkonce.kv.generation.slab import KvShape
from thinkonce.kv.weights.model import Model
from thinkonce.settings import Kv

CPU = torch.device("cpu")
TEXT = "It was a bright cold day in April, and the clocks were striking thirteen. " * 3
MESSAGES = [{"role": "user", "content": TEXT}]


def shape_of(dtype: torch.dtype, layers: int = 3, heads: int = 2, dim: int = 8) -> KvShape:
    return KvShape(layers, heads, dim, dtype, CPU)


def state_like(shape: KvShape, tokens: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    made = torch.Generator().manual_seed(seed)
    size = (shape.layers, 2, shape.kv_heads, tokens, shape.head_dim)
    state = torch.randn(size, generator=made) * scale
    state[:, 0, :, :, 0] *= 50  # a channel that is large in every token
    return state.to(shape.dtype)


SHAPES = st.builds(
    shape_of,
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from([2, 6, 8]),
)


@pytest.mark.parametrize("name", CODECS)
@given(shape=SHAPES, tokens=st.integers(1, 40), seed=st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_a_block_comes_back_from_its_bytes_as_it_came_from_memory(
    name: str, shape: KvShape, tokens: int, seed: int
) -> None:
    codec = CODECS[name](shape)  # type: ignore[index]
    state = state_like(shape, tokens, seed)
    kept = codec.encode(state)
    data = bytes_of(kept)
    assert len(data) == kept.nbytes == codec.size(tokens)
    again = codec.kept_of(memoryview(bytearray(data)), tokens)
    assert again is not None
    decoded = codec.decode(kept)
    assert torch.equal(codec.decode(again), decoded)
    assert (decoded.shape, decoded.dtype) == (state.shape, state.dtype)
    assert torch.equal(decoded, state) or not codec.is_exact


@given(
    shape=SHAPES,
    tokens=st.integers(1, 40),
    seed=st.integers(0, 99),
    scale=st.sampled_from([1e-6, 1.0, 1e4]),
)
@settings(max_examples=60, deadline=None)
def test_a_number_in_eight_bits_is_off_by_half_a_step_at_most(
    shape: KvShape, tokens: int, seed: int, scale: float
) -> None:
    state, codec = state_like(shape, tokens, seed, scale), Int8(shape)
    wide = state.float()
    steps = torch.empty_like(wide)
    steps[:, 0] = wide[:, 0].abs().amax(2, keepdim=True) / 127
    steps[:, 1] = wide[:, 1].abs().amax(3, keepdim=True) / 127
    # What comes back is rounded to the model's numbers once more.
    rounding = wide.abs() * torch.finfo(shape.dtype).eps
    off = (codec.decode(codec.encode(state)).float() - wide).abs()
    assert bool((off <= steps * 0.5001 + rounding).all())


def test_nothing_but_zeros_stays_nothing_but_zeros() -> None:
    shape = shape_of(torch.float32)
    state = torch.zeros(3, 2, 2, 5, 8)
    assert torch.equal(Int8(shape).decode(Int8(shape).encode(state)), state)


@pytest.mark.parametrize("name", CODECS)
def test_bytes_of_another_length_are_no_block(name: str) -> None:
    codec: Codec = CODECS[name](shape_of(torch.bfloat16))  # type: ignore[index]
    data = bytes(bytes_of(codec.encode(state_like(shape_of(torch.bfloat16), 16, 1))))
    for wrong in (b"", data[:-1], data + b"\0", data[: len(data) // 2], data * 2):
        assert codec.kept_of(memoryview(bytearray(wrong)), 16) is None
    assert codec.kept_of(memoryview(bytearray(data)), 15) is None


def test_eight_bits_take_about_half_of_bf16_and_a_quarter_of_fp32() -> None:
    for dtype, share in ((torch.bfloat16, 0.5), (torch.float32, 0.25)):
        shape = shape_of(dtype, layers=30, heads=3, dim=64)
        part = Int8(shape).size(128) / codec_of("raw", shape).size(128)
        assert share < part < share * 1.1


def test_what_is_kept_in_eight_bits_is_found_and_takes_less(model: Model) -> None:
    sizes = {}
    for codec in CODECS:
        with Engine(model, open_engine(model, Kv(chunk=64, codec=codec))) as engine:
            first, again = (engine.chat(MESSAGES, max_tokens=1) for _ in range(2))
            stats = engine.stats()
        assert first.usage.cached_tokens == 0
        assert again.usage.cached_tokens == stats["memory"]["tokens"] > 0
        assert (stats["codec"], stats["exact"]) == (codec, codec == "raw")
        sizes[codec] = stats["memory"]["bytes"]
    assert sizes["int8"] < 0.6 * sizes["raw"]


def test_a_folder_keeps_each_codec_s_blocks_apart(model: Model, tmp_path: Path) -> None:
    def asked(codec: str) -> int:
        kv = Kv(chunk=64, codec=codec, store=str(tmp_path / "kv"))  # type: ignore[arg-type]
        with Engine(model, open_engine(model, kv)) as engine:
            return engine.chat(MESSAGES, max_tokens=1).usage.cached_tokens

    assert asked("int8") == 0
    assert asked("raw") == 0, "what is not exact is never found by who wants it to the bit"
    found = asked("int8")
    assert asked("raw") == found > 0


def test_an_answer_says_that_what_it_stands_on_is_not_exact(serve: Serve) -> None:
    served = serve(kv=Kv(chunk=64, codec="int8"))
    body = {"messages": MESSAGES, "max_tokens": 1}
    url = f"{served.url}/v1/chat/completions"
    first, again = (httpx.post(url, json=body, timeout=60).json() for _ in range(2))
    assert "kv_cache" not in first, "nothing was loaded"
    assert again["usage"]["prompt_cache_hit_tokens"] > 0
    assert again["kv_cache"]["exact"] is False


def test_a_codec_nobody_has_is_refused(model: Model) -> None:
    with pytest.raises(ConfigError, match="raw or int8"):
        open_engine(model, Kv(codec="int4"))  # type: ignore[arg-type]
