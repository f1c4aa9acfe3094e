"""Seconds of CPU of a hit in GPTCache, embedding excluded; run by costs.py in GPTCache's own
environment: python gptcache_hits.py VECTORS.npz -> one JSON line.

Its own stack: SQLite for the answers, faiss for the vectors, the distance as the judge, at its own
default threshold. Vectors are handed to it, the same that ours are.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from gptcache import Cache, Config  # type: ignore[import-not-found]
from gptcache.adapter.api import get, put  # type: ignore[import-not-found]
from gptcache.manager import (  # type: ignore[import-not-found]
    CacheBase,
    VectorBase,
    get_data_manager,
)
from gptcache.processor.pre import get_prompt  # type: ignore[import-not-found]
from gptcache.similarity_evaluation.distance import (  # type: ignore[import-not-found]
    SearchDistanceEvaluation,
)


def main(file: Path) -> None:
    with np.load(file) as found:
        stored, asked = found["stored"], found["asked"]
    known = {f"s{at}": row for at, row in enumerate(stored)}
    known |= {f"a{at}": row for at, row in enumerate(asked)}
    cache = Cache()
    with tempfile.TemporaryDirectory() as folder:
        cache.init(
            pre_embedding_func=get_prompt,
            embedding_func=lambda text, **_: known[text],
            data_manager=get_data_manager(
                CacheBase("sqlite", sql_url=f"sqlite:///{folder}/answers.db"),
                VectorBase("faiss", dimension=stored.shape[1], index_path=f"{folder}/index"),
            ),
            similarity_evaluation=SearchDistanceEvaluation(),
            config=Config(log_time_func=None),
        )
        for at in range(len(stored)):
            put(f"s{at}", f"answer {at}", cache_obj=cache)
        seconds, hits = [], 0
        for at in range(len(asked)):
            began = time.process_time()
            hit = get(f"a{at}", cache_obj=cache)
            seconds.append(time.process_time() - began)
            hits += hit is not None
        print(json.dumps({"hits": hits, "seconds": seconds}))
        cache.data_manager.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
