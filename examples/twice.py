"""The main job: the same questions twice, in English and Chinese, streamed and not.

The second answers come from the cache, whichever shape the first one had.

Shows:
    MISS What is the capital of France?
    HIT  What is the capital of France?
    HIT  What is the capital of France? (streamed)
    MISS 营业时间是几点？ (streamed)
    HIT  营业时间是几点？ (streamed)
    HIT  营业时间是几点？
"""

import os
import time

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "none"),
)


def ask(question: str, stream: bool = False) -> None:
    began = time.perf_counter()
    raw = client.chat.completions.with_raw_response.create(
        model="SmolLM2-135M-Instruct",
        messages=[{"role": "user", "content": question}],
        temperature=0,
        stop=["\n", "。", ","],
        max_tokens=100,
        stream=stream,
        extra_body={"kv_cache": {"namespace": "twice"}},
    )
    reply = raw.parse()
    if stream:
        pieces = [chunk.choices[0].delta.content or "" for chunk in reply if chunk.choices]
        text = "".join(pieces)
    else:
        text = reply.choices[0].message.content or ""
    milliseconds = 1000 * (time.perf_counter() - began)
    how = " (streamed)" if stream else ""
    print(f"{raw.headers['x-cache']:4} {question}{how}  {milliseconds:.1f} ms  {text!r}")


english, chinese = "What is the capital of France?", "营业时间是几点？"
ask(english)
ask(english)
ask(english, stream=True)
ask(chinese, stream=True)
ask(chinese, stream=True)
ask(chinese)
