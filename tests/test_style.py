"""How the package reads, measured: sizes of functions and files, annotations, comments."""

from __future__ import annotations

import ast
import io
import tokenize
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median, quantiles

import pytest

# Every file is parsed once, and by one worker.
pytestmark = pytest.mark.xdist_group("style")

SRC = Path(__file__).parent.parent / "src" / "thinkonce"
FILES = sorted(SRC.rglob("*.py"))

MEDIAN_LINES, P90_LINES, MAX_LINES = 9, 30, 60
P90_PARAMETERS = 4
SHORTEST_FILE, LONGEST_FILE = 50, 400
# Lines with comments and lines of docstrings per hundred lines of code; see docs/decisions.md.
COMMENTS, DOCSTRINGS = (3, 10), (12, 40)
# Shorter than a file should be, because nothing else belongs there.
SMALL = {"__main__.py", "version.py", "clock.py"}


@dataclass(frozen=True)
class Function:
    """`lines` from `def` to its end, its docstring apart."""

    place: str
    lines: int
    parameters: int
    unannotated: tuple[str, ...]


@cache
def read(file: Path) -> tuple[tuple[Function, ...], frozenset[int]]:
    """Its functions, and the numbers of lines that docstrings take. Trees are large: none stays."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return (
        tuple(measured(file, node) for node in nodes if isinstance(node, functions)),
        frozenset(number for node in nodes for number in docstring_range(node)),
    )


def measured(file: Path, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Function:
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    arguments += [extra for extra in (node.args.vararg, node.args.kwarg) if extra]
    named = [argument for argument in arguments if argument.arg not in ("self", "cls")]
    missing = [argument.arg for argument in named if argument.annotation is None]
    if node.returns is None:
        missing.append("return")
    lines = (node.end_lineno or node.lineno) - node.lineno + 1 - docstring_lines(node)
    place = f"{file.relative_to(SRC)}:{node.lineno} {node.name}"
    return Function(place, lines, len(named), tuple(missing))


def docstring_lines(node: ast.AST) -> int:
    return len(docstring_range(node))


def docstring_range(node: ast.AST) -> range:
    """Numbers of the lines `node`'s docstring takes."""
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return range(0)
    if ast.get_docstring(node, clean=False) is None:
        return range(0)
    text = node.body[0]
    return range(text.lineno, (text.end_lineno or text.lineno) + 1)


def worst(functions: list[Function]) -> str:
    five = sorted(functions, key=lambda function: -function.lines)[:5]
    return "the longest: " + ", ".join(f"{function.place} ({function.lines})" for function in five)


@pytest.fixture(scope="module")
def all_functions() -> list[Function]:
    return [function for file in FILES for function in read(file)[0]]


def test_functions_are_short(all_functions: list[Function]) -> None:
    lines = [function.lines for function in all_functions]
    assert median(lines) <= MEDIAN_LINES, worst(all_functions)
    assert quantiles(lines, n=10)[8] <= P90_LINES, worst(all_functions)
    assert max(lines) <= MAX_LINES, worst(all_functions)


def test_functions_take_few_parameters(all_functions: list[Function]) -> None:
    counts = [function.parameters for function in all_functions]
    five = sorted(all_functions, key=lambda function: -function.parameters)[:5]
    assert quantiles(counts, n=10)[8] <= P90_PARAMETERS, [
        (function.place, function.parameters) for function in five
    ]


def test_every_function_is_annotated(all_functions: list[Function]) -> None:
    bare = [(function.place, function.unannotated) for function in all_functions]
    assert not [entry for entry in bare if entry[1]][:5]


def test_files_are_neither_long_nor_many_of_them_short() -> None:
    sizes = {
        str(file.relative_to(SRC)): len(file.read_text(encoding="utf-8").splitlines())
        for file in FILES
        if file.name != "__init__.py"
    }
    long = {name: size for name, size in sizes.items() if size > LONGEST_FILE}
    small = {
        name: size for name, size in sizes.items() if size < SHORTEST_FILE and name not in SMALL
    }
    assert not long, f"longer than {LONGEST_FILE} lines: {long}"
    # A few short files are honest; a habit of them is a layout that splits nouns.
    assert len(small) <= len(sizes) / 5, f"shorter than {SHORTEST_FILE} lines: {small}"


def test_comments_and_docstrings_are_neither_rare_nor_everywhere() -> None:
    shares = {str(file.relative_to(SRC)): counted(file) for file in FILES}
    code = sum(count.code for count in shares.values())
    comments = 100 * sum(count.comments for count in shares.values()) / code
    docstrings = 100 * sum(count.docstrings for count in shares.values()) / code
    five = sorted(shares.items(), key=lambda item: -item[1].comments / max(item[1].code, 1))[:5]
    assert COMMENTS[0] <= comments <= COMMENTS[1], f"{comments:.1f} per 100 lines of code; {five}"
    five = sorted(shares.items(), key=lambda item: -item[1].docstrings / max(item[1].code, 1))[:5]
    assert DOCSTRINGS[0] <= docstrings <= DOCSTRINGS[1], f"{docstrings:.1f} per 100; {five}"


@dataclass(frozen=True)
class Lines:
    code: int
    comments: int
    docstrings: int


def counted(file: Path) -> Lines:
    text = file.read_text(encoding="utf-8")
    _, documented = read(file)
    comments = sum(
        token.type == tokenize.COMMENT
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
    )
    code = sum(
        bool(line.strip()) and not line.lstrip().startswith("#")
        for number, line in enumerate(text.splitlines(), start=1)
        if number not in documented
    )
    return Lines(code, comments, len(documented))
