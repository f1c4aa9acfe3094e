"""What OpenAI's three dialects read alike in a request: media, state, who runs the tools."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

__all__ = (
    "has_remote_media",
    "identity_of",
    "is_live",
    "live_field",
    "number_or_none",
    "runs_elsewhere",
    "wants_json",
    "wants_usage",
)

_NOT_IDENTITY = ("stream", "kv_cache", "cache")
_LONGEST_SCHEME = 32  # characters
_JSON_FORMATS = ("json_object", "json_schema")
# OpenRouter's `:online` (also before another variant), `-online`, OpenAI's models that search.
_LIVE_MODEL = re.compile(
    r"[:-]online(?=:|$)|-search-(preview|api)(?=-\d|:|$)|-deep-research(?=-|:|$)"
)
# Fields that let live data in (web search of OpenAI, xAI, OpenRouter, Qwen).
_LIVE_FIELDS = ("web_search_options", "search_parameters", "plugins", "enable_search")


def identity_of(body: dict[str, Any], ignore: frozenset[str]) -> dict[str, Any]:
    """The body less what never counts, and less the fields named in `ignore`."""
    identity = body.copy()
    for name in (*_NOT_IDENTITY, *ignore):
        identity.pop(name, None)
    options = identity.get("stream_options")
    if isinstance(options, dict):
        rest = {name: value for name, value in options.items() if name != "include_usage"}
        if rest:
            identity["stream_options"] = rest
        else:
            del identity["stream_options"]
    return identity


def wants_usage(body: dict[str, Any]) -> bool:
    """Whether the client asks for usage in a stream."""
    options = body.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def wants_json(form: Any) -> bool:
    """Whether a response format asks for JSON."""
    return isinstance(form, dict) and form.get("type") in _JSON_FORMATS


def number_or_none(value: Any) -> float | None:
    """A number as it is; None for anything else, a bool too."""
    return value if type(value) in (int, float) else None


def live_field(body: dict[str, Any]) -> str:
    """The field that lets live data into the answer; "" for none."""
    if is_live(body.get("model")):
        return "model"
    return next((name for name in _LIVE_FIELDS if body.get(name)), "")


def is_live(model: Any) -> bool:
    """Whether a model's name says that it searches before it answers."""
    return isinstance(model, str) and _LIVE_MODEL.search(model) is not None


def runs_elsewhere(tools: Any, pure: Collection[str]) -> bool:
    """Whether some tool is of another kind than `pure`, those the client runs itself.

    Whatever has a shape that is not known here may be run anywhere.
    """
    if not tools or not isinstance(tools, list):
        return bool(tools)
    return any(not isinstance(tool, dict) or _kind_of(tool) not in pure for tool in tools)


def _kind_of(tool: dict[str, Any]) -> str:
    """What says who runs it; "" for nothing."""
    kind = tool.get("type")
    if kind is None and isinstance(tool.get("function"), dict):
        return "function"
    return kind if isinstance(kind, str) else ""


def has_remote_media(items: Any) -> bool:
    """Whether some message, or result of a tool, holds a URL that stands for a picture or file."""
    if not isinstance(items, list):
        return False
    for item in items:
        if not isinstance(item, dict):
            continue
        for parts in (item.get("content"), item.get("output")):
            if type(parts) is list and any(map(_is_remote, parts)):
                return True
    return False


def _is_remote(part: Any) -> bool:
    if not isinstance(part, dict):
        return False
    for name in ("image_url", "video_url", "audio_url", "file_url"):
        media = part.get(name)
        url = media.get("url") if isinstance(media, dict) else media
        if isinstance(url, str) and not url.startswith("data:"):
            return True
    return any(map(_is_link, _data_of(part)))


def _data_of(part: dict[str, Any]) -> Iterator[Any]:
    """What stands where a file's own bytes are expected; some servers take a link there."""
    yield part.get("file_data")
    for name, inside in (("file", "file_data"), ("input_audio", "data")):
        media = part.get(name)
        if isinstance(media, dict):
            yield media.get(inside)


def _is_link(data: Any) -> bool:
    # No base64 text holds a colon, and a data URL no "//" behind its own.
    return isinstance(data, str) and "://" in data[:_LONGEST_SCHEME]
