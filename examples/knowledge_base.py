"""A knowledge base: each question is asked with five of 200 documents, in changing order.

The model runs in this process. `exact` reuses what stands at a prompt's beginning, so a document
that comes in another place is read again. `link` and `blend` reuse it wherever it stands: an
approximation, which the answer says. A document that changes is purged by its id, and read again.

Shows:
    way       tokens  computed  CPU s each
    none
    exact
    link
    doc-17 was found: True
    doc-17 was found: False
    blend
"""

import random
import re
import time
from typing import Any

from thinkonce.kv import Engine

PRICE = 0.15  # USD for a million tokens of prompts
TOPICS = ("harbour", "market", "bridge", "school", "river", "mill", "garden", "station")
WORDS = ("old", "new", "wooden", "narrow", "quiet", "busy", "small", "large", "moved", "painted")


def article(number: int) -> str:
    """What a wiki of a town would say: a title, and facts that somebody once wrote down."""
    draw, topic = random.Random(number), TOPICS[number % len(TOPICS)]
    facts = (
        f"In {draw.randint(1700, 1999)} the {topic} was {draw.choice(WORDS)}, {draw.choice(WORDS)} "
        f"and {draw.choice(WORDS)}; {draw.randint(2, 90)} people worked there."
        for _ in range(4)
    )
    return f"Article {number}: the {topic} of quarter {number // len(TOPICS)}.\n" + " ".join(facts)


DOCUMENTS = [{"id": f"doc-{number}", "text": article(number)} for number in range(200)]
QUESTIONS = [
    f"When was the {topic} of quarter {quarter} built?"
    for quarter in (2, 3)
    for topic in TOPICS[:5]
]


def found_for(question: str) -> list[dict[str, str]]:
    """Five whose titles name the question's quarter, its topic first; those alike by chance."""
    draw, wanted = random.Random(question), set(re.findall(r"\w+", question))

    def rank(document: dict[str, str]) -> tuple[bool, bool, float]:
        _, topic, quarter = re.findall(
            r"Article (\d+): the (\w+) of quarter (\d+)", document["text"]
        )[0]
        return quarter not in wanted, topic not in wanted, draw.random()

    return sorted(DOCUMENTS, key=rank)[:5]


def ask(engine: Engine, question: str, way: str) -> Any:
    return engine.chat(
        [
            {"role": "system", "content": "Answer with what the articles say, in one sentence."},
            {"role": "user", "content": question},
        ],
        documents=found_for(question),
        reuse="exact" if way == "none" else way,
        kv_cache={"enabled": way != "none"},
        max_tokens=1,  # what takes long is reading
        temperature=0,
    )


def computed(answer: Any) -> int:
    return answer.usage.prompt_tokens - answer.usage.cached_tokens


def row(engine: Engine, way: str) -> str:
    began = time.process_time()
    answers = [ask(engine, question, way) for question in QUESTIONS]
    seconds = (time.process_time() - began) / len(answers)
    tokens = sum(answer.usage.prompt_tokens for answer in answers)
    new = sum(map(computed, answers))
    saved = (tokens - new) / len(answers) / 1e6 * PRICE * 1000
    return f"{way:8}{tokens:8,}{new:10,}{seconds:11.2f}  {saved:.3f}"


print("way       tokens  computed  CPU s each  USD saved in 1,000 questions")
for way in ("none", "exact", "link", "blend"):
    with Engine.open("SmolLM2-135M-Instruct", dtype="bfloat16") as engine:
        print(row(engine, way), flush=True)
        if way == "link":
            seventeen = next(q for q in QUESTIONS if DOCUMENTS[17] in found_for(q))
            ask(engine, seventeen, way)
            for _ in range(2):
                chunks = ask(engine, seventeen, way).explain.chunks
                there = next(chunk for chunk in chunks if chunk.document == "doc-17")
                told = f"doc-17 was found: {there.memory_tokens == there.tokens}"
                print(told)
                engine.purge(document="doc-17")
