"""A conversation is part of the question, unless you say that it is not.

By default the same last message after another history is another request. With
`context_aware: false` only the system messages and the last message count: right for a search
box or a command line, wrong for “and in Berlin?”.

Shows:
    with its history: MISS
    other history: MISS
    history ignored: MISS
    other history, ignored: HIT
"""

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "none"),
)


def ask(history: list[tuple[str, str]], question: str, context_aware: bool) -> str:
    messages = [{"role": role, "content": text} for role, text in history]
    raw = client.chat.completions.with_raw_response.create(
        model="SmolLM2-135M-Instruct",
        messages=[*messages, {"role": "user", "content": question}],  # type: ignore[list-item]
        stop=[".", "\n", ","],
        max_tokens=200,
        extra_body={"kv_cache": {"context_aware": context_aware, "namespace": "context"}},
    )
    return raw.headers["x-cache"]


paris = [("user", "I live in Paris."), ("assistant", "How nice.")]
rome = [("user", "I live in Rome."), ("assistant", "How nice.")]
question = "Tell me about my city."
print("with its history:", ask(paris, question, context_aware=True))
print("other history:", ask(rome, question, context_aware=True))
print("history ignored:", ask(paris, "What is two plus two?", context_aware=False))
print("other history, ignored:", ask(rome, "What is two plus two?", context_aware=False))
