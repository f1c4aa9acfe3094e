"""Fifty tasks ask the same question at the same time: the model is asked once.

Shows:
    50 answers, all equal: True
    calls to the model: 1
    coalesced: 49
"""

import asyncio
import os

from openai import AsyncOpenAI

from thinkonce import cached

client = AsyncOpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "none"),
)
calls = 0


@cached(ttl="1h")
async def ask(prompt: str) -> str:
    global calls
    calls += 1
    reply = await client.chat.completions.create(
        model="SmolLM2-135M-Instruct",
        messages=[{"role": "user", "content": prompt}],
        max_tokens=32,
        temperature=0,
    )
    return reply.choices[0].message.content or ""


async def main() -> None:
    answers = await asyncio.gather(*(ask("What is the capital of Italy?") for _ in range(50)))
    print(f"{len(answers)} answers, all equal: {len(set(answers)) == 1}")
    print(f"calls to the model: {calls}")
    print(f"coalesced: {ask.cache_stats()['coalesced']}")
    await client.close()


asyncio.run(main())
