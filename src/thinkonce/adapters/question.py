"""One request of a client: which endpoint it asks, of whom, and whether that is ours to answer.

    https://api.openai.com/v1/chat/completions
    └────────── base ────────┘└──── name ────┘   POST, a JSON body in memory: ours

Anything else is handed to the wrapped transport as it came.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from thinkonce.protocols.registry import SPEECHES
from thinkonce.upstream.failure import Header

__all__ = ("ASKED", "Question", "question_of")

# Longest first: one name may be the end of another.
_NAMES = sorted(SPEECHES, key=len, reverse=True)
_is_root = re.compile(r"(.*/)?v\d\w*|").fullmatch
# Set by what stands between a client and a provider, and changed by it at any time: Cloudflare,
# Amazon's, Google's and Microsoft's load balancers. They say nothing of what is asked or by whom.
_is_infrastructure = re.compile(
    rb"\s*(__cf_bm|_cfuvid|__cflb|cf_clearance|AWSALB\w*|GCLB|ARRAffinity\w*)\s*=.*", re.DOTALL
).fullmatch
_OURS = (b"cache-control", b"pragma")


@dataclass(slots=True, eq=False)
class Question:
    """`request` is the library's own. `is_asked`: a call to the provider is made for it;

    `provider_id` is what the provider then calls the request.
    """

    request: Any
    base: str
    name: str
    query: bytes
    headers: list[Header]
    body: bytes
    is_asked: bool = False
    provider_id: bytes = b""

    @property
    def has_controls(self) -> bool:
        """Whether something in it may be addressed to us."""
        return (
            b'"kv_cache"' in self.body
            or b'"cache"' in self.body
            or any(_is_ours(name) for name, _ in self.headers)
        )

    def to_pass_on(self) -> list[Header]:
        """The request's headers as they were written, but for those that are addressed to us."""
        return [pair for pair in self.request.headers.raw if not _is_ours(pair[0].lower())]

    @property
    def timeouts(self) -> Mapping[str, float | None]:
        """Seconds, as the library counts them."""
        return self.request.extensions.get("timeout") or {}

    @property
    def patience(self) -> float | None:
        """Seconds that its client waits for an answer to begin, at most; None: for ever."""
        limits = self.timeouts
        parts = [limits.get(name) for name in ("pool", "connect", "write", "read")]
        known = [part for part in parts if part is not None]
        return sum(known) if len(known) == len(parts) else None


# The question that the running task answers, for the call that is made on its behalf.
ASKED: ContextVar[Question] = ContextVar("thinkonce_question")


def question_of(library: Any, request: Any) -> Question | None:
    """None for what is none of ours: another path, an upload, no JSON.

    `library`: `httpx` or `httpx2`, of which `request` is.
    """
    if request.method != "POST" or not isinstance(request.stream, library.ByteStream):
        return None
    url = request.url
    path, _, query = url.raw_path.partition(b"?")
    place = _place(path.decode("latin-1"))
    if place is None or not _is_json(request.headers):
        return None
    prefix, name = place
    base = f"{url.scheme}://{url.netloc.decode('latin-1')}{prefix}"
    headers = list(_that_count(request.headers.raw))
    return Question(request, base, name, query, headers, request.content)


def _place(path: str) -> tuple[str, str] | None:
    """`/v1/chat/completions` -> ("/v1/", "chat/completions")."""
    for name in _NAMES:
        if path.endswith("/" + name):
            prefix = path.removesuffix(name)
            if SPEECHES[name].facts.at_root and not _is_root(prefix.strip("/")):
                return None
            return prefix, name
    return None


def _is_json(headers: Any) -> bool:
    kind, coding = headers.get("content-type", ""), headers.get("content-encoding", "identity")
    return ("json" in kind.lower() or not kind) and coding == "identity"


def _that_count(raw: Iterable[Header]) -> Iterable[Header]:
    for written, value in raw:
        name = written.lower()
        if name == b"cookie":
            value = b";".join(each for each in value.split(b";") if not _is_infrastructure(each))
            if not value.strip():
                continue
        yield name, value


def _is_ours(name: bytes) -> bool:
    return name in _OURS or name.startswith(b"x-thinkonce-")
