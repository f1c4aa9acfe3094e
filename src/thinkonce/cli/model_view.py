"""A running model server, seen through its paths below /kv."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any
from urllib.parse import urlencode

import msgspec
import typer

from thinkonce.cli.gateway_view import GatewayError, GatewayView

__all__ = ("MODEL_SERVER", "ModelUrl", "ModelView")

MODEL_SERVER = "http://127.0.0.1:8001"  # where `serve-model` listens unless told otherwise
ModelUrl = Annotated[
    str,
    typer.Option(
        "--url",
        help=f"A model server's address; token: THINKONCE_ADMIN_TOKEN.  [default: {MODEL_SERVER}]",
        show_default=False,
    ),
]
PAGE = 500  # branches asked for at a time


class ModelView(GatewayView):
    """Speaks to `url`, a model server's address with or without `/v1`. Raises GatewayError."""

    server, command, whose = "model server", "serve-model", "--tenant ID, as its gateway names it"
    elsewhere = (
        "; the model of `thinkonce serve --local` has the address that its start says: --url"
    )

    def kept(self) -> dict[str, Any]:
        """What `/kv/stats` tells; `reuse` is always there."""
        found = self.ask("GET", "/kv/stats", dict[str, Any])
        if "reuse" not in found:
            raise GatewayError(f"{self.place}/kv/stats: what answers is no thinkonce {self.server}")
        return found

    def why(self, body: bytes, headers: dict[str, str]) -> dict[str, Any]:
        """What `/kv/explain` tells of a request; `headers`: whose it is."""
        return self.ask("POST", "/kv/explain", dict[str, Any], body, **headers)

    def forget(self, named: dict[str, Any]) -> dict[str, Any]:
        """What `/kv/purge` tells that it did; `named`: its body."""
        return self.ask("POST", "/kv/purge", dict[str, Any], msgspec.json.encode(named))

    def branches(self, limit: int) -> Iterator[dict[str, Any]]:
        """The branches of the prefix tree, a parent before its children; `limit` at most."""
        after = ""
        while limit > 0:
            query = urlencode({"limit": min(PAGE, limit)} | ({"after": after} if after else {}))
            page = self.ask("GET", f"/kv/entries?{query}", dict[str, Any])
            yield from page["entries"]
            limit, after = limit - len(page["entries"]), page["next"]
            if not after:
                return

    def chain(self, name: str) -> dict[str, Any]:
        """The blocks up to the one whose name begins so."""
        return self.ask("GET", f"/kv/entries/{name}", dict[str, Any])
