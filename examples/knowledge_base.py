"""A knowledge base: each question is asked with five of 200 documents, in changing order.

The model runs in this process. `exact` reuses what stands at a prompt's beginning, so a document
that comes in another place is read again. `link` and `blend` reuse it wherever it stands: an
approximation, which the answer says. A document that changes is purged by its id, and read again.
`modules` has a schema for each quarter, whose eight documents are read before anybody asks: a
prompt names the five it takes, which stand where the schema has them. Everything is asked twice,
the second time with the documents the other way round: what is reused has to be read once, and
that a document is read by itself makes its first prompt slower, not faster. The answers are as
short as can be, so that the time of one is its time to first token.

Shows:
    way       tokens  computed  TTFT s  then computed  TTFT s
    none
    exact
    link
    doc-17 was found: True
    doc-17 was found: False
    blend
    modules
    read before:
"""

import random
import re
import time
from typing import Any
from xml.sax.saxutils import escape

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
    for topic in TOPICS[:3]
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


SYSTEM = "Answer with what the articles say, in one sentence."
BRIEF = {"max_tokens": 1, "temperature": 0}  # what takes long is reading


def ask(engine: Engine, question: str, way: str, turned: int = 1) -> Any:
    """`turned` -1: with the documents the other way round."""
    user = {"role": "user", "content": question}
    if way == "modules":
        taken = [document["id"] for document in found_for(question)]
        return engine.chat([user], schema=shelf_of(question), modules=taken, **BRIEF)
    return engine.chat(
        [{"role": "system", "content": SYSTEM}, user],
        documents=found_for(question)[::turned],
        reuse="exact" if way == "none" else way,
        kv_cache={"enabled": way != "none"},
        **BRIEF,
    )


def shelf_of(question: str) -> str:
    return "quarter-" + re.findall(r"quarter (\d+)", question)[0]


def schema(quarter: str) -> str:
    """The documents of a quarter, each a module at positions of its own."""
    titled = f" of {quarter.replace('-', ' ')}."
    modules = "".join(
        f'<module name="{document["id"]}">{escape(document["text"])}\n</module>'
        for document in DOCUMENTS
        if titled in document["text"]
    )
    return f'<schema name="{quarter}"><system>{SYSTEM}\n{modules}</system></schema>'


def read_before(engine: Engine) -> int:
    """Read the schemas of all that will be asked; how many tokens that was."""
    told = {}
    for quarter in sorted(set(map(shelf_of, QUESTIONS))):
        engine.schema(schema(quarter), progress=lambda _, of, name=quarter: told.update({name: of}))
    return sum(told.values())


def computed(answer: Any) -> int:
    return answer.usage.prompt_tokens - answer.usage.cached_tokens


def measured(engine: Engine, way: str, turned: int) -> tuple[int, int, float]:
    """Tokens of all prompts, those of them that were computed, and seconds a question."""
    began = time.perf_counter()
    answers = [ask(engine, question, way, turned) for question in QUESTIONS]
    seconds = (time.perf_counter() - began) / len(answers)
    tokens = sum(answer.usage.prompt_tokens for answer in answers)
    return tokens, sum(map(computed, answers)), seconds


def row(engine: Engine, way: str) -> str:
    tokens, first, slow = measured(engine, way, 1)
    _, then, fast = measured(engine, way, -1)
    saved = (tokens - then) / len(QUESTIONS) / 1e6 * PRICE * 1000
    return f"{way:8}{tokens:8,}{first:10,}{slow:8.2f}{then:15,}{fast:8.2f}  {saved:.3f}"


def found_again(engine: Engine, way: str) -> None:
    """A document that changes is purged, and not found where it was before."""
    seventeen = next(q for q in QUESTIONS if DOCUMENTS[17] in found_for(q))
    ask(engine, seventeen, way)
    for _ in range(2):
        chunks = ask(engine, seventeen, way).explain.chunks
        there = next(chunk for chunk in chunks if chunk.document == "doc-17")
        print(f"doc-17 was found: {there.memory_tokens == there.tokens}")
        engine.purge(document="doc-17")


HEADS = "way       tokens  computed  TTFT s  then computed  TTFT s  USD saved in 1,000 questions"

print(HEADS)
for way in ("none", "exact", "link", "blend", "modules"):
    with Engine.open("SmolLM2-135M-Instruct", dtype="bfloat16") as engine:
        before = read_before(engine) if way == "modules" else 0
        print(row(engine, way), flush=True)
        if way == "link":
            found_again(engine, way)
        if before:
            print(f"read before: {before:,} tokens of two schemas, once")
