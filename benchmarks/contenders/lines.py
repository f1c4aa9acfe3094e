"""How a contender talks to the benchmark: one JSON object a line, in and out.

It runs in whatever environment its own pins need, so this module needs nothing but the standard
library. First comes {"model", "gguf", "threads", "dtype", "context"}; then requests {"prompt":
ids, "tokens": most, "known": bool}, each answered by {"seconds", "answer", "cached"}. `known`
false: nothing of an earlier prompt may be used. `known` true: whatever it keeps, it may use.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ("Ask", "Setting", "serve")

Setting = dict[str, Any]
Ask = Callable[[Sequence[int], int, bool], tuple[Any, int]]
"""Prompt, tokens at most, whether earlier prompts may be used: the answer, and how many tokens of
the prompt were not computed. The answer is text or ids; only equality is asked of it."""


def serve(opened: Callable[[Setting], tuple[str, Ask]]) -> None:
    """Open with the first line's setting, say the version, and answer until the input ends."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not come between
    lines = iter(sys.stdin)
    version, ask = opened(json.loads(next(lines)))
    print(json.dumps({"version": version}), file=replies, flush=True)
    for line in lines:
        asked = json.loads(line)
        began = time.perf_counter()
        answer, cached = ask(asked["prompt"], asked["tokens"], asked["known"])
        seconds = time.perf_counter() - began
        reply = {"seconds": seconds, "answer": answer, "cached": cached}
        print(json.dumps(reply), file=replies, flush=True)
