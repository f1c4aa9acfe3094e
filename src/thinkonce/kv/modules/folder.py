"""Schemas in files: those of a folder, which all tenants share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from thinkonce.errors import ConfigError, RequestError
from thinkonce.kv.modules.chat import Compiled, compiled
from thinkonce.kv.modules.markup import read_schema
from thinkonce.kv.modules.registry import Schemas

__all__ = ("schemas_in",)


def schemas_in(folder: str, tokenizer: Any, context_tokens: int) -> Schemas:
    """Of every .xml file right in a folder, all shared; below it `src` may name files. Of "" none.

    Raises ConfigError for a folder that is none, and for a file that names the line and element.
    """
    if not folder:
        return Schemas()
    return Schemas(_compiled(Path(folder), tokenizer, context_tokens), Path(folder))


def _compiled(folder: Path, tokenizer: Any, context_tokens: int) -> Iterator[Compiled]:
    if not folder.is_dir():
        raise ConfigError("[kv] schemas", str(folder), "a folder of schemas that can be read")
    names: dict[str, Path] = {}
    for path in sorted(folder.glob("*.xml")):
        try:
            schema = read_schema(path.read_text("utf-8"), folder)
            found = compiled(schema, tokenizer, context_tokens)
        except (OSError, UnicodeDecodeError, RequestError) as wrong:
            raise ConfigError("[kv] schemas", str(path), f"a schema ({wrong})") from wrong
        if (other := names.setdefault(found.name, path)) != path:
            accepts = f"a schema of another name; {other.name} is called {found.name!r}"
            raise ConfigError("[kv] schemas", str(path), accepts)
        yield found
