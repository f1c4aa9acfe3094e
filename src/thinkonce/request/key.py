"""Keys: who asks whom for what, as one hash that tells nothing of the prompt."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from thinkonce.request.controls import DEFAULTS, Controls
from thinkonce.tiers.tier import Key

__all__ = ("ANONYMOUS", "KEY_VERSION", "Keyer")

KEY_VERSION = 1
ANONYMOUS = "anonymous"


class Keyer:
    """Makes keys under one installation secret (32 bytes). Thread-safe."""

    def __init__(self, secret: bytes) -> None:
        self.secret = secret

    def tenant(self, credential: Sequence[tuple[bytes, bytes]]) -> str:
        """32 hex digits; "anonymous" without a credential. Memoised."""
        raise NotImplementedError

    def request_key(
        self,
        endpoint: str,
        pool: str,
        tenant: str,
        identity: dict[str, Any],
        controls: Controls = DEFAULTS,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> Key:
        """`identity` as the dialect gave it, `headers` the keyed ones."""
        raise NotImplementedError

    def call_key(
        self,
        function: str,
        version: str,
        namespace: str,
        args: bytes,
        local: Hashable | None = None,
    ) -> Key:
        """For a Python call: `args` from `canonical_args`; `local` None: made from the parts."""
        raise NotImplementedError

    def call_digest(self, function: str, version: str, namespace: str, args: bytes) -> bytes:
        raise NotImplementedError
