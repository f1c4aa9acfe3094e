"""vLLM on a CPU with automatic prefix caching: cold prompts bring a salt of their own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import count

from lines import Ask, Setting, serve

SPACE = "1"  # GiB for attention state


def opened(setting: Setting) -> tuple[str, Ask]:
    for name, value in {
        "VLLM_CPU_KVCACHE_SPACE": SPACE,
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(setting["threads"]),
    }.items():
        os.environ[name] = value
    from vllm import LLM, SamplingParams, __version__  # reads the environment as it is imported

    engine = LLM(
        model=setting["model"],
        skip_tokenizer_init=True,
        dtype=setting["dtype"],
        max_model_len=setting["context"],
        enable_prefix_caching=True,
        max_num_seqs=2,
    )
    strangers = count()

    def ask(prompt: Sequence[int], tokens: int, known: bool) -> tuple[list[int], int]:
        salt = "known" if known else f"stranger {next(strangers)}"
        sampling = SamplingParams(temperature=0, max_tokens=tokens, detokenize=False)
        [found] = engine.generate(
            [{"prompt_token_ids": list(prompt), "cache_salt": salt}], sampling, use_tqdm=False
        )
        return list(found.outputs[0].token_ids), int(found.num_cached_tokens or 0)

    return __version__, ask


if __name__ == "__main__":
    serve(opened)
