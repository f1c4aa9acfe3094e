"""A streamed answer is recorded while it is read, and replayed piece by piece.

Shows:
    first:
    again:
    same pieces: True
"""

import os
import time
from collections.abc import Iterator

from openai import OpenAI

from thinkonce import cached

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "none"),
)


@cached
def stream(prompt: str) -> Iterator[str]:
    for chunk in client.chat.completions.create(
        model="SmolLM2-135M-Instruct",
        messages=[{"role": "user", "content": prompt}],
        max_tokens=24,
        temperature=0,
        stream=True,
    ):
        if chunk.choices and chunk.choices[0].delta.content:
            yield chunk.choices[0].delta.content


def read(name: str) -> list[str]:
    began = time.perf_counter()
    pieces = list(stream("Name three colours."))
    print(f"{name}: {len(pieces)} pieces in {1000 * (time.perf_counter() - began):.2f} ms")
    return pieces


print(f"same pieces: {read('first') == read('again')}")
