"""What a body says about attention state: `kv_cache`, and OpenAI's `prompt_cache_key`."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from thinkonce.errors import RequestError
from thinkonce.kv.prefix.owner import Owner
from thinkonce.kv.prefix.terms import CLASSES, MAX_LIFE, USUAL, Priority, Terms

__all__ = ("KvControls", "check_part", "controls_in", "life_of")

_Name = Annotated[str, Meta(max_length=1024)]
_Tag = Annotated[str, Meta(max_length=256)]
_PINNED_LIFE = CLASSES["1h"]


class KvControls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields of `kv_cache` that this server honours; null and absent mean the same.

    `enabled` false: what is known of the prompt is not loaded, and nothing of it is kept.
    `refresh`: it is not loaded, and kept. `namespace`, `cache_key` and `tags` keep prompts apart.
    `ttl`: seconds or a class, from the last use on. `preload`: kept like `priority` pinned, for
    an hour where `ttl` does not say how long. `explain`: the answer's usage tells why not more
    was loaded.
    """

    enabled: bool | None = None
    refresh: bool | None = None
    namespace: _Name | None = None
    cache_key: _Name | None = None
    ttl: float | str | None = None
    priority: Priority | None = None
    preload: bool | None = None
    explain: bool | None = None
    tags: Annotated[tuple[_Tag, ...], Meta(max_length=64)] | None = None

    def terms(self, life: float | None = None) -> Terms:
        """`life`: what the prompt's `cache_control` says, where `ttl` says nothing."""
        if self == _NONE and life is None:
            return USUAL
        enabled = self.enabled is not False
        if self.ttl is not None:
            life = life_of("kv_cache.ttl", self.ttl)
        elif self.preload and life is None:
            life = _PINNED_LIFE
        return Terms(
            reads=enabled and not self.refresh,
            keeps=enabled,
            life=life,
            priority="pinned" if self.preload else self.priority or "medium",
            explains=bool(self.explain),
        )

    def owner(self, of: Owner, prompt_cache_key: str | None) -> Owner:
        """`of` as the credential has it, and the names that the request itself gives."""
        key = self.cache_key or prompt_cache_key or ""
        tags = tuple(sorted(set(self.tags or ())))
        return replace(of, namespace=self.namespace or "", cache_key=key, tags=tags)


_NONE = KvControls()


def controls_in(given: Any) -> KvControls:
    """Raises RequestError that names the field, or lists those that there are."""
    if given is None:
        return _NONE
    try:
        controls = msgspec.convert(given, KvControls)
    except msgspec.ValidationError as wrong:
        expected, _, path = str(wrong).partition(" - at `$")
        field = path.rstrip("`")
        if expected.startswith("Object contains unknown field"):
            name = expected.rpartition("`")[0].rpartition("`")[2]
            known = ", ".join(KvControls.__struct_fields__)
            raise RequestError(f"kv_cache.{name}", given.get(name), f"one of {known}") from wrong
        accepts = expected.removeprefix("Expected ").partition(", got")[0].replace("`", "")
        raise RequestError(f"kv_cache{field}", "another value", accepts) from wrong
    if controls.ttl is not None:
        life_of("kv_cache.ttl", controls.ttl)
    return controls


def check_part(at: str, part: dict[str, Any]) -> None:
    """Raises RequestError for a part of a message that asks to be reused in another way than all
    are: it would be read exactly, and its sender would not know.
    """
    if (said := part.get("kv_cache")) not in (None, {}, {"reuse": "exact"}):
        raise RequestError(f"{at}.kv_cache", said, "{'reuse': 'exact'}; no other is built yet")


def life_of(field: str, ttl: object) -> float:
    """Seconds. Raises RequestError for what is neither a class nor a number of them."""
    life = CLASSES.get(ttl) if isinstance(ttl, str) else ttl
    if isinstance(life, int | float) and not isinstance(life, bool) and 0 < life <= MAX_LIFE:
        return float(life)
    raise RequestError(field, ttl, f"{', '.join(CLASSES)}, or seconds up to {MAX_LIFE:.0f}")
