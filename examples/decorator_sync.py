"""Give a function that calls a model a memory.

Start a gateway first (`make run`), or set OPENAI_BASE_URL and OPENAI_API_KEY to any provider's.

Shows:
    first call
    second call
    1 hit, 1 miss
"""

import os
import time

from openai import OpenAI

from thinkonce import cached

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "none"),
)


@cached(ttl="1h", max_size=1000)
def ask(prompt: str, *, model: str = "SmolLM2-135M-Instruct") -> str:
    reply = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": prompt}], max_tokens=32, temperature=0
    )
    return reply.choices[0].message.content or ""


for name in ("first call", "second call"):
    began = time.perf_counter()
    answer = ask("What is the capital of France?")
    print(f"{name}: {1000 * (time.perf_counter() - began):.3f} ms: {answer!r}")

stats = ask.cache_stats()
print(f"{stats['hits']} hit, {stats['misses']} miss, {stats['saved_seconds']:.2f} s saved")
