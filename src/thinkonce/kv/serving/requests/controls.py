"""What a body says about attention state: `kv_cache`, and OpenAI's `prompt_cache_key`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from thinkonce.errors import RequestError
from thinkonce.kv.prefix.owner import Owner
from thinkonce.kv.prefix.prompt import METHODS, Method
from thinkonce.kv.prefix.terms import CLASSES, MAX_LIFE, PRIORITIES, USUAL, Priority, Terms
from thinkonce.kv.serving.requests.wrong import wrong_in

__all__ = ("KvControls", "controls_in", "life_of", "marked")

_Name = Annotated[str, Meta(max_length=1024)]
_Tag = Annotated[str, Meta(max_length=256)]
_PINNED_LIFE = CLASSES["1h"]
# What fields accept that take one of a few words.
_WORDS = {
    "priority": ", ".join(PRIORITIES),
    "reuse": f"{', '.join(METHODS)}; modules are taken by `schema`",
}


class KvControls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields of `kv_cache` that this server honours; null and absent mean the same.

    `enabled` false: what is known of the prompt is not loaded, and nothing of it is kept.
    `refresh`: it is not loaded, and kept. `namespace`, `cache_key` and `tags` keep prompts apart.
    `ttl`: seconds or a class, from the last use on. `preload`: kept like `priority` pinned, for
    an hour where `ttl` does not say how long. `explain`: the answer's usage tells why not more
    was loaded. `reuse`: how marked parts of messages are reused; "exact" forbids any other way.
    `schema`: what the prompt is put together from, with those `modules` and `arguments`.
    """

    enabled: bool | None = None
    refresh: bool | None = None
    namespace: _Name | None = None
    cache_key: _Name | None = None
    ttl: float | str | None = None
    priority: Priority | None = None
    preload: bool | None = None
    explain: bool | None = None
    reuse: Method | None = None
    tags: Annotated[tuple[_Tag, ...], Meta(max_length=64)] | None = None
    schema: _Name | None = None
    modules: Annotated[tuple[_Name, ...], Meta(max_length=1024)] | None = None
    arguments: Annotated[dict[_Name, str], Meta(max_length=1024)] | None = None

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

    def owner(
        self, of: Owner, prompt_cache_key: str | None, documents: Collection[str] = ()
    ) -> Owner:
        """`of` as the credential has it, and the names that the request itself gives.

        A tag that is the name of one of its `documents` keeps nothing apart: it says what marks
        say, and whoever tags an answer with its documents wants them found with others too.
        """
        key = self.cache_key or prompt_cache_key or ""
        tags = tuple(sorted(set(self.tags or ()) - set(documents)))
        return replace(of, namespace=self.namespace or "", cache_key=key, tags=tags)


_NONE = KvControls()


def controls_in(given: Any) -> KvControls:
    """Raises RequestError that names the field, or lists those that there are."""
    if given is None:
        return _NONE
    try:
        controls = msgspec.convert(given, KvControls)
    except msgspec.ValidationError as wrong:
        raise wrong_in(given, wrong, KvControls, "kv_cache", _WORDS) from wrong
    if controls.ttl is not None:
        life_of("kv_cache.ttl", controls.ttl)
    if controls.schema is None and (controls.modules or controls.arguments):
        field = "modules" if controls.modules else "arguments"
        raise RequestError(f"kv_cache.{field}", given[field], "these where `schema` names one")
    return controls


class _PartControls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reuse: Method | None = None
    id: _Name = ""


def marked(
    at: str, part: dict[str, Any], asked: Method | None, usual: Method
) -> tuple[Method, str] | None:
    """How a part of a message is reused, and its document's name; None: like all that is said.

    `asked`: what the request says of all marked parts. "exact" there holds for every part; parts
    with a `cache_control` alone are marked where it names another method, since clients that send
    it elsewhere expect what is exact. `usual`: where nobody says. Raises RequestError.
    """
    said = part.get("kv_cache")
    try:
        own = msgspec.convert(said or {}, _PartControls)
    except msgspec.ValidationError as wrong:
        accepts = f"reuse ({', '.join(METHODS)}) and id (a text)"
        raise RequestError(f"{at}.kv_cache", said, accepts) from wrong
    method = "exact" if asked == "exact" else own.reuse or asked or usual
    by_breakpoint = part.get("cache_control") is not None and asked not in (None, "exact")
    if own.id or (method != "exact" and (said or by_breakpoint)):
        return method, own.id
    return None


def life_of(field: str, ttl: object) -> float:
    """Seconds. Raises RequestError for what is neither a class nor a number of them."""
    life = CLASSES.get(ttl) if isinstance(ttl, str) else ttl
    if isinstance(life, int | float) and not isinstance(life, bool) and 0 < life <= MAX_LIFE:
        return float(life)
    raise RequestError(field, ttl, f"{', '.join(CLASSES)}, or seconds up to {MAX_LIFE:.0f}")
