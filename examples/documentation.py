"""A documentation generator: run again, it asks only about what changed.

A persistent store remembers across runs. The identity of a call holds the text to document, so
an edited function is asked about again and the others are not.

Shows:
    first run: 3 calls to the model
    second run: 0 calls to the model
    one function edited: 1 calls to the model
"""

import os
import tempfile
from pathlib import Path

from openai import OpenAI

from thinkonce import Cache

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "none"),
)
calls = 0


def describe(source: str) -> str:
    global calls
    calls += 1
    reply = client.chat.completions.create(
        model="SmolLM2-135M-Instruct",
        messages=[{"role": "user", "content": f"In one sentence, what does this do?\n{source}"}],
        max_tokens=24,
        temperature=0,
    )
    return reply.choices[0].message.content or ""


def run(name: str, functions: list[str], store: Path) -> None:
    before = calls
    with Cache(store=f"sqlite:///{store}") as cache:
        for source in functions:
            cache.get_or_call(describe, source)
    print(f"{name}: {calls - before} calls to the model")


with tempfile.TemporaryDirectory() as folder:
    store = Path(folder) / "docs.db"
    functions = ["def add(a, b): return a + b", "def neg(a): return -a", "def one(): return 1"]
    run("first run", functions, store)
    run("second run", functions, store)
    run("one function edited", [*functions[:2], "def two(): return 2"], store)
