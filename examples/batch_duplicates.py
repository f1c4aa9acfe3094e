"""A batch with duplicates: equal prompts cost one call, whatever their position and label.

`batch_mode` leaves the label (`cache_key`) out of the key; without it a label keeps requests of
different jobs apart. Requests under way at the same time share one call as well.

Shows:
    12 requests, 3 different prompts
    answered without the model: 9
"""

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "none"),
)
PROMPTS = ["Name a fruit.", "Name a colour.", "Name an animal."] * 4


def ask(item: tuple[int, str]) -> str:
    number, prompt = item
    raw = client.chat.completions.with_raw_response.create(
        model="SmolLM2-135M-Instruct",
        messages=[{"role": "user", "content": prompt}],
        stop=[".", "\n", ","],
        max_tokens=200,
        extra_body={
            "kv_cache": {"cache_key": f"row-{number}", "batch_mode": True, "namespace": "batch"}
        },
    )
    return raw.headers["x-cache"]


with ThreadPoolExecutor(6) as pool:
    outcomes = Counter(pool.map(ask, enumerate(PROMPTS)))
print(f"{len(PROMPTS)} requests, {len(set(PROMPTS))} different prompts: {dict(outcomes)}")
print(f"answered without the model: {outcomes['HIT'] + outcomes['COALESCED']}")
