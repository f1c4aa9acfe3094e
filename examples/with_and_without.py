"""With and without the cache on prompts of your own.

`thinkonce bench --prompts FILE --url URL` does the same with a table; this is how it is done by
hand. `kv_cache: {"enabled": false}` neither reads nor stores.

Shows:
    without
    with
    times faster
"""

import os
import time

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "none"),
)
PROMPTS = ["What is the capital of Spain?", "What is the capital of Japan?"]


def seconds(enabled: bool) -> float:
    began = time.perf_counter()
    for prompt in PROMPTS:
        client.chat.completions.create(
            model="SmolLM2-135M-Instruct",
            messages=[{"role": "user", "content": prompt}],
            stop=[".", "\n"],
            max_tokens=100,
            extra_body={"kv_cache": {"enabled": enabled, "namespace": "compare"}},
        )
    return time.perf_counter() - began


without = seconds(enabled=False)
seconds(enabled=True)  # fills the cache
cached = seconds(enabled=True)
print(f"without: {1000 * without / len(PROMPTS):.1f} ms a request")
print(f"with: {1000 * cached / len(PROMPTS):.1f} ms a request")
print(f"{without / cached:.0f} times faster")
