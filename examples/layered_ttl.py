"""One cache, answers of different lives: what is asked often, rarely, and what soon is wrong.

A class sets the life and, unless one is given, the weight when room is needed.

Shows:
    hot
    static
    realtime
    90 seconds
"""

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "none"),
)
QUESTIONS: list[tuple[str, str | int]] = [
    ("What is your return policy?", "hot"),  # 5 minutes, high priority
    ("What is the boiling point of water?", "static"),  # 24 hours
    ("Is the shop open now?", "realtime"),  # 5 minutes
    ("Give me a greeting.", 90),  # seconds
]

for question, ttl in QUESTIONS:
    for _ in range(2):
        raw = client.chat.completions.with_raw_response.create(
            model="SmolLM2-135M-Instruct",
            messages=[{"role": "user", "content": question}],
            stop=[".", "\n", ","],
            max_tokens=200,
            extra_body={"kv_cache": {"ttl": ttl}},
        )
    name = ttl if isinstance(ttl, str) else f"{ttl} seconds"
    print(f"{name}: {raw.headers['x-cache']}, {raw.headers['x-cache-ttl']} s left")
