"""llama.cpp by way of xllamacpp: two slots, one that keeps its prompt and one that does not.

It reads the GGUF file as it is (quantised), so its seconds are those of other arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

import xllamacpp
from lines import Ask, Setting, serve

KEEPS, FORGETS = 0, 1


def opened(setting: Setting) -> tuple[str, Ask]:
    chosen = xllamacpp.CommonParams()
    chosen.model.path = setting["gguf"]
    chosen.n_ctx, chosen.n_parallel = 2 * setting["context"], 2
    chosen.cpuparams.n_threads = chosen.cpuparams_batch.n_threads = setting["threads"]
    chosen.n_gpu_layers, chosen.verbosity = 0, -1
    chosen.cache_ram_mib = 0  # else idle slots come back from a second cache
    server = xllamacpp.Server(chosen)

    def ask(prompt: Sequence[int], tokens: int, known: bool) -> tuple[str, int]:
        found = server.handle_completions(
            {
                "prompt": list(prompt),
                "n_predict": tokens,
                "temperature": 0,
                "cache_prompt": known,
                "id_slot": KEEPS if known else FORGETS,
            }
        )
        if "choices" not in found:
            raise RuntimeError(f"llama.cpp answered {found!r}")
        return found["choices"][0]["text"], int(found["timings"]["cache_n"])

    return version("xllamacpp"), ask


if __name__ == "__main__":
    serve(opened)
