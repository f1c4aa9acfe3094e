"""The fenced blocks of the pages people read, and the reason a block may give for not running.

<!-- not run: needs a provider's key -->
```python
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGES = (
    ROOT / "README.md",
    ROOT / "README.zh-CN.md",
    ROOT / "ARCHITECTURE.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "examples" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
)
RUNNABLE = {"python", "sh", "json", "toml"}
# Words after ``` that name no program: what is shown, not run. Of queries the metrics are checked.
SHOWN = {"text", "mermaid", "promql"}

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[\w-]*)[^\n]*\n(?P<code>.*?)^(?P=indent)```", re.S | re.M
)
_REASON = re.compile(r"<!-- not run: (?P<reason>[^>]+?) -->\s*$")


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    code: str
    reason: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks() -> Iterator[Block]:
    for page in PAGES:
        if page.exists():
            yield from blocks_of(page, page.read_text(encoding="utf-8"))


def blocks_of(page: Path, text: str) -> Iterator[Block]:
    for fence in _FENCE.finditer(text):
        before = text[: fence.start()]
        reason = _REASON.search(before.rstrip())
        yield Block(
            page=page,
            line=before.count("\n") + 1,
            language=fence["language"],
            code=fence["code"],
            reason=reason["reason"].strip() if reason else "",
        )
