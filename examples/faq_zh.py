"""客服常见问题: the questions everybody asks are answered before anybody asks them.

`preload` pins an answer until its time to live is over, so that rarer questions cannot push it
out. Tags let you forget them in one go when the rules change.

Shows:
    预热 4 个问题
    HIT 退货需要几天？
    HIT 怎么开发票？
    命中率 100%
"""

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "none"),
)
SYSTEM = "你是一个网店的客服，用一句话回答。"
QUESTIONS = ["退货需要几天？", "怎么开发票？", "营业时间是几点？", "可以货到付款吗？"]


def ask(question: str, **kv_cache: object) -> tuple[str, bool]:
    reply = client.chat.completions.create(
        model="SmolLM2-135M-Instruct",
        messages=[{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}],
        stop=["。", "！", "？", "\n", ","],
        max_tokens=200,
        temperature=0,
        extra_body={"kv_cache": {"namespace": "faq", "tags": ["faq", "2026"], **kv_cache}},
    )
    return reply.choices[0].message.content or "", bool(getattr(reply, "cache_hit", False))


for question in QUESTIONS:
    ask(question, preload=True, ttl="24h")
print(f"预热 {len(QUESTIONS)} 个问题")

hits = 0
for question in ["退货需要几天？", "怎么开发票？", "可以货到付款吗？"]:
    _answer, hit = ask(question)
    hits += hit
    print("HIT" if hit else "MISS", question)
print(f"命中率 {hits / 3:.0%}")
