"""What our own engine is told of a request's controls: those about attention state."""

from __future__ import annotations

from typing import Any

import msgspec

from thinkonce.request.controls import Controls

__all__ = ("engine_controls",)


def engine_controls(controls: Controls) -> bytes:
    """The `kv_cache` that the engine gets, as JSON; empty where there is nothing to say."""
    told: dict[str, Any] = {}
    if not controls.enabled:
        told["enabled"] = False
    if controls.refresh:
        told["refresh"] = True
    if controls.namespace:
        told["namespace"] = controls.namespace
    return msgspec.json.encode(told) if told else b""
