"""What of a request's controls our own engine is told: what concerns attention state."""

from __future__ import annotations

import msgspec

from thinkonce.request.controls import Controls

__all__ = ("engine_controls",)

_LONGEST_LIFE = 30 * 86_400.0  # seconds; the engine refuses a longer one


def engine_controls(controls: Controls) -> bytes:
    """The `kv_cache` that our own engine gets, as JSON; empty where there is nothing to say.

    A class of lives that the configuration names is not told: the engine does not know it.
    """
    told = {
        "enabled": None if controls.enabled else False,
        "refresh": controls.refresh or None,
        "namespace": controls.namespace or None,
        "tags": controls.tags or None,
        "ttl": min(controls.ttl, _LONGEST_LIFE) if controls.ttl else None,
        "priority": controls.priority or None,
        "preload": controls.preload or None,
        "reuse": controls.reuse or None,
        "schema": controls.schema or None,
        "modules": controls.modules or None,
        "arguments": dict(controls.arguments) or None,
    }
    told = {name: value for name, value in told.items() if value is not None}
    return msgspec.json.encode(told) if told else b""
