"""The codecs by the names that the setting has for them."""

from __future__ import annotations

from collections.abc import Callable

from thinkonce.errors import ConfigError
from thinkonce.kv.generation.codecs.codec import Codec
from thinkonce.kv.generation.codecs.int8 import Int8
from thinkonce.kv.generation.codecs.raw import Raw
from thinkonce.kv.generation.slab import KvShape
from thinkonce.settings import KvCodec

__all__ = ("CODECS", "codec_of")

CODECS: dict[KvCodec, Callable[[KvShape], Codec]] = {"raw": Raw, "int8": Int8}


def codec_of(name: KvCodec, shape: KvShape) -> Codec:
    """That of the setting, for one model's blocks. Raises ConfigError for a name that is none."""
    if name not in CODECS:
        raise ConfigError("codec", name, " or ".join(CODECS))
    return CODECS[name](shape)
