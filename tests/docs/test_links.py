"""What pages name is there: the pages and headings they link to, and the files of the package."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from docs.blocks import PAGES, ROOT

SRC = ROOT / "src" / "thinkonce"
# Of what was once so: files may have gone since.
PAST = {"decisions.md", "log.md"}
READ = [page for page in PAGES if page.exists() and page.name not in PAST]

_LINK = re.compile(r"\]\((?!https?:|mailto:)(?P<page>[^)#\s]*)(?:#(?P<heading>[^)\s]+))?\)")
_FILE = re.compile(r"`([\w/]+\.py)`")
_PLACEHOLDER = re.compile(r"\bNAME\b")


@cache
def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@cache
def headings(page: Path) -> frozenset[str]:
    """As GitHub makes anchors of them."""
    titles = re.findall(r"^#+ (.+)$", text_of(page), re.M)
    kept = (re.sub(r"[^\w\s-]", "", title.lower()) for title in titles)
    return frozenset(title.strip().replace(" ", "-") for title in kept)


@cache
def files() -> tuple[str, ...]:
    """Paths that end a path of the repository's Python files, each with a slash before it."""
    places = (SRC, ROOT / "tests", ROOT / "benchmarks", ROOT / "examples", ROOT / "docs")
    found = (file for place in places for file in place.rglob("*.py"))
    return tuple(f"/{file.relative_to(ROOT)}" for file in found)


@pytest.mark.parametrize("page", READ, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.finditer(text_of(page)):
        target = (page.parent / link["page"]).resolve() if link["page"] else page
        assert target.exists(), f"{page.name} links to {link['page']}"
        if link["heading"] and target.suffix == ".md":
            assert link["heading"] in headings(target), f"{page.name} links to {link[0]}"


@pytest.mark.parametrize("page", READ, ids=lambda page: page.name)
def test_files_that_a_page_names_are_there(page: Path) -> None:
    if page.name == "files.md":
        return  # written from the files themselves
    for name in _FILE.findall(text_of(page)):
        known = any(file.endswith(f"/{name}") for file in files())
        assert known or _PLACEHOLDER.search(name), f"{page.name} names {name}"
