"""What whoever opens the base URL sees: what this is, and where to go from here."""

from __future__ import annotations

import msgspec

from thinkonce.engine.marks import JSON_TYPE
from thinkonce.upstream.failure import Header
from thinkonce.version import __version__

__all__ = ("front_page",)

_ABOUT = "A cache in front of language models."
_PLACES = {
    "/v1": "the base URL for OpenAI's clients (Anthropic's: this address without /v1)",
    "/openapi.json": "everything it can be asked",
    "/readyz": "whether it serves",
    "/metrics": "what it counts",
    "/cache/stats": "what it holds, for those who may look",
}
_TEXT: Header = (b"content-type", b"text/plain; charset=utf-8")
_VARY: Header = (b"vary", b"Accept")


def front_page(accept: bytes) -> tuple[list[Header], bytes]:
    """Headers and body: text for browsers, JSON for everybody else."""
    if b"text/html" in accept or b"text/plain" in accept:
        return [_TEXT, _VARY], _as_text().encode()
    said = {"name": "thinkonce", "version": __version__, "about": _ABOUT, "places": _PLACES}
    return [JSON_TYPE, _VARY], msgspec.json.encode(said)


def _as_text() -> str:
    width = max(map(len, _PLACES))
    rows = "".join(f"{path:{width}}   {about}\n" for path, about in _PLACES.items())
    return f"thinkonce {__version__}\n{_ABOUT}\n\n{rows}"
