"""Pages of docs/ that the program knows are what it would write now."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

DOCS = Path(__file__).parent.parent.parent / "docs"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_committed_pages_are_what_the_program_says(generator: ModuleType) -> None:
    for name, text in generator.pages().items():
        path = DOCS / name
        assert path.exists(), f"docs/{name} is missing: run `make docs`"
        assert path.read_text(encoding="utf-8") == text, f"docs/{name} is old: run `make docs`"


def test_no_generated_page_names_this_machine(generator: ModuleType) -> None:
    home = str(Path.home())
    for name, text in generator.pages().items():
        assert home not in text, f"docs/{name} holds a path of the machine that wrote it"
        assert str(DOCS.parent) not in text


def test_charts_are_well_formed_and_bars_grow_with_their_values(generator: ModuleType) -> None:
    generator.pages()  # puts benchmarks/ on the path
    from record import Table
    from report import chart

    rows: list[list[str | float | int | None]] = [["thinkonce <1>", 2.0], ["b", 4.0], ["c", None]]
    svg = ElementTree.fromstring(chart(Table("t", ["case", "us"], rows, chart="us")))
    space = "{http://www.w3.org/2000/svg}"
    widths = [float(bar.attrib["width"]) for bar in svg.iter(f"{space}rect")][1:]
    assert len(widths) == 2, "a case without a number has no bar"
    assert widths[0] * 2 == pytest.approx(widths[1])
