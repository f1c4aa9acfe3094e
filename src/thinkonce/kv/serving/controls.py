"""What a body says about attention state: `kv_cache`, and OpenAI's `prompt_cache_key`."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from thinkonce.errors import RequestError
from thinkonce.kv.prefix.owner import Owner
from thinkonce.kv.prefix.terms import USUAL, Terms

__all__ = ("KvControls", "controls_in")

_Name = Annotated[str, Meta(max_length=1024)]


class KvControls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields of `kv_cache` that this server honours; null and absent mean the same.

    `enabled` false: what is known of the prompt is not loaded, and nothing of it is kept.
    `refresh`: it is not loaded, and kept. `namespace` and `cache_key` keep prompts apart.
    """

    enabled: bool | None = None
    refresh: bool | None = None
    namespace: _Name | None = None
    cache_key: _Name | None = None

    @property
    def terms(self) -> Terms:
        enabled = self.enabled is not False
        return Terms(reads=enabled and not self.refresh, keeps=enabled) if self != _NONE else USUAL

    def owner(self, of: Owner, prompt_cache_key: str | None) -> Owner:
        """`of` as the credential has it, and the names that the request itself gives."""
        key = self.cache_key or prompt_cache_key or ""
        return replace(of, namespace=self.namespace or "", cache_key=key)


_NONE = KvControls()


def controls_in(given: Any) -> KvControls:
    """Raises RequestError that names the field, or lists those that there are."""
    if given is None:
        return _NONE
    try:
        return msgspec.convert(given, KvControls)
    except msgspec.ValidationError as wrong:
        expected, _, path = str(wrong).partition(" - at `$")
        field = path.rstrip("`")
        if expected.startswith("Object contains unknown field"):
            name = expected.rpartition("`")[0].rpartition("`")[2]
            known = ", ".join(KvControls.__struct_fields__)
            raise RequestError(f"kv_cache.{name}", given.get(name), f"one of {known}") from wrong
        accepts = expected.removeprefix("Expected ").partition(", got")[0].replace("`", "")
        raise RequestError(f"kv_cache{field}", "another value", accepts) from wrong
