"""A provider of both dialects and all endpoints, for clients that drive every one of them."""

from __future__ import annotations

import base64
import struct
from typing import Any

from gateway.anthropic_upstream import answers
from gateway.upstream import Out, Seen, answer

VECTOR = [0.25, 0.5, 1.0]
MODEL = {"id": "m", "object": "model", "created": 1, "owned_by": "us"}

_messages = answers()


async def provide(seen: Seen, out: Out) -> None:
    """What each endpoint answers; streams where they are asked for."""
    path = seen.path.partition("?")[0]
    if path.endswith("/embeddings"):
        await out.json(embeddings(seen.json))
    elif path.endswith("/messages"):
        await _messages(seen, out)
    elif path.endswith("/models"):
        await out.json({"object": "list", "data": [MODEL]})
    else:
        await answer(seen, out)


def embeddings(body: dict[str, Any]) -> dict[str, Any]:
    given = body["input"] if isinstance(body["input"], list) else [body["input"]]
    packed = base64.b64encode(struct.pack(f"<{len(VECTOR)}f", *VECTOR)).decode()
    vector: Any = packed if body.get("encoding_format") == "base64" else VECTOR
    rows = [{"object": "embedding", "index": n, "embedding": vector} for n in range(len(given))]
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    return {"object": "list", "data": rows, "model": "m", "usage": usage}
