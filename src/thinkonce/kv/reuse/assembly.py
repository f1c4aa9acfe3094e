"""What a prompt with chunks is put together from, and what of it is computed.

    prompt    | head           | doc-7 |   | doc-2    | question |
    exact     |================|                                      found under its own names
    chunks                     |=======|   |==========|               each under its own
    computed                    xx      xxx xx         xxxxxxxxxx     the rows of the plan

A chunk's chain is named by the tokens that it was encoded behind. Where a chunk stands where it
was encoded, behind the very head, its state is that of a true prefix and nothing of it is
computed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from math import inf

from thinkonce.kv.generation.keeping import Keeping
from thinkonce.kv.prefix.asking import Asking
from thinkonce.kv.prefix.blocks import packed
from thinkonce.kv.prefix.causes import WhyExact
from thinkonce.kv.prefix.chain import Chain, chunk_chain
from thinkonce.kv.prefix.prompt import Method, Prompt, Span
from thinkonce.kv.reuse.layout import Layout, Plan
from thinkonce.kv.reuse.ways import Way, Ways

__all__ = ("LEAST_TOKENS", "MOST_ROWS", "Assembly", "Part", "assembly_of", "method_of")

LEAST_TOKENS = 64
"""Of a chunk; what is shorter is computed with the rest."""
MOST_ROWS = 0.5
"""Of a prompt: with more, reading it exactly is about as soon done."""


@dataclass(frozen=True, slots=True)
class Part:
    """A chunk: where it stands in the prompt, and where its state is found. `was`: the position
    at which it was encoded.
    """

    span: Span
    chain: Chain
    was: int

    @property
    def tokens(self) -> int:
        return self.span.end - self.span.start


@dataclass(frozen=True)
class Assembly:
    """`head`: what stands in front of the first chunk; it is read exactly. `behind`: what chunks
    are encoded behind.
    """

    asking: Asking
    method: Method
    way: Way
    head: Prompt
    behind: Prompt
    parts: Sequence[Part]
    layout: Layout
    plan: Plan
    layers: int

    @cached_property
    def rows(self) -> tuple[int, ...]:
        """Places that are computed in the first layer, in order."""
        return tuple(sorted({*self.plan.places, *self.layout.unknown}))

    @property
    def front(self) -> Asking:
        """What is asked of the head, with a token behind it: the last one is never loaded."""
        return replace(self.asking, prompt=self.asking.prompt.until(len(self.head) + 1))

    @property
    def cost(self) -> float:
        """Tokens that are computed, as a mean over the layers."""
        return self.plan.rows(self.layout, self.layers)

    def recomputed(self, part: Part) -> int:
        """Of a chunk's tokens those that are computed again, in the last layer, about."""
        if self.asking.is_ahead:
            return 0
        start, end = part.span[:2]
        rows = sum(start <= row < end for row in self.rows)
        share = part.tokens / max(1, len(self.layout.moved))
        if self.plan.quotas:
            return min(rows, round(self.plan.quotas[-1] * share))
        return rows + round(self.plan.looked * share)


def method_of(prompt: Prompt) -> Method | None:
    """How the marked parts of a prompt are to be reused: as the first says that is not "exact"."""
    return next((span.method for span in prompt.spans if span.method != "exact"), None)


def assembly_of(keeping: Keeping, ways: Ways, asking: Asking, layers: int) -> Assembly | WhyExact:
    """Of a prompt with marked parts; or why it is read exactly. From any thread."""
    prompt = asking.prompt
    method = method_of(prompt)
    way = ways.way(method, asking) if method is not None else None
    if method is None or way is None:
        return "not_faithful"
    marked = [span for span in prompt.spans if span.method == method]
    head = prompt.until(marked[0].start)
    behind = Prompt(way.behind(head))
    if behind == head:
        behind = head  # with the marks of what stands in it
    # Encoded behind that, a chunk has to lie within the positions that the model knows.
    most = getattr(keeping.network.config, "max_position_embeddings", inf) - len(behind)
    spans = [span for span in marked if LEAST_TOKENS <= span.end - span.start <= most]
    if not spans:
        return "too_short" if marked[0].end - marked[0].start <= most else "not_worth"
    parts = [_part(keeping, asking, span, behind) for span in spans]
    # The first chunk behind the head it was encoded behind is where it was.
    is_there = behind == head and spans[0].start == len(head)
    exact = spans[0].end if is_there else len(head)
    chunks = tuple(range(s.start, s.end) for s in spans if s.start >= exact)
    layout = Layout(len(prompt), chunks, exact)
    plan = way.choice.plan(layout, layers)
    found = Assembly(asking, method, way, head, behind, parts, layout, plan, layers)
    if not asking.is_ahead and found.cost > MOST_ROWS * len(prompt):
        return "not_worth"
    return found


def _part(keeping: Keeping, asking: Asking, span: Span, behind: Prompt) -> Part:
    """What it was encoded behind says something too: with that it is purged."""
    marks = {*behind.documents, *filter(None, (span.document,))}
    owner = keeping.purges.era_of(asking.owner.with_documents(tuple(marks)))
    tokens = asking.prompt[span.start : span.end]
    context = blake2b(packed(behind), digest_size=32).hexdigest()
    chain = chunk_chain(tokens, keeping.chunk_tokens, keeping.fingerprint, owner, context)
    return Part(span, chain, len(behind))
