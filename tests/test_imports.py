"""The import graph keeps its direction, and light commands stay light."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "lshbench"

# What each layer may import of ours; every layer may import those of `BASE`.
BASE = {"types", "errors", "text", "files"}
ALLOWED = {
    "types": set(),
    "errors": set(),
    "text": set(),
    "files": set(),
    "runtime": set(),
    "metrics": set(),
    "config": set(),
    "run_folder": {"metrics"},
    "kernels": {"runtime"},
    "ranking": {"kernels"},
    "training": {"metrics", "runtime"},
    "methods": {"metrics", "runtime", "training"},
    "index": {"kernels", "ranking"},
    "data": {"runtime"},
    "features": {"data", "runtime"},
    "protocols": {"data"},
    "relevance": {"data", "kernels", "protocols", "ranking", "runtime"},
    "evaluation": {"index", "metrics", "ranking", "runtime", "training"},
    "inputs": {"config", "data", "features", "protocols", "relevance", "runtime"},
    "system": {"config", "index", "methods", "run_folder", "training"},
    "report": {"metrics", "run_folder"},
    "plots": {"report", "run_folder"},
    "trackers": {"run_folder"},
    "search": {"config", "data", "features", "inputs", "plots", "run_folder", "runtime", "system"},
    "tuning": {
        "config", "evaluation", "index", "inputs", "protocols", "relevance", "run_folder", "runtime", "system",
        "training",
    },
    "experiment": {
        "config", "data", "evaluation", "inputs", "metrics", "plots", "protocols", "ranking", "relevance", "report",
        "run_folder", "runtime", "system", "trackers",
    },
    "extraction": {"config", "features", "inputs", "runtime"},
    "commands": {
        "config", "data", "experiment", "extraction", "plots", "report", "run_folder", "runtime", "search", "tuning",
    },
    "api": {"commands", "experiment", "run_folder", "runtime"},
    "cli": {"commands", "runtime"},
    "__main__": {"cli"},
    "__init__": {"api"},
}  # fmt: skip

# Outside packages that a layer must not import anywhere, not even inside a function.
FORBIDDEN = {
    "types": {"torch", "faiss", "numba", "scipy", "sklearn", "hydra", "omegaconf", "pyarrow", "rich"},
    "metrics": {"torch", "faiss", "numba", "scipy", "sklearn", "hydra", "omegaconf", "pyarrow", "rich"},
    "plots": {"torch", "faiss", "hydra", "omegaconf", "datasets", "timm"},
    "run_folder": {"torch", "faiss", "hydra", "omegaconf", "datasets", "timm"},
    "report": {"torch", "faiss", "hydra", "omegaconf", "datasets", "timm"},
}
HEAVY = {
    "torch",
    "faiss",
    "datasets",
    "timm",
    "numba",
    "sklearn",
    "hydra",
    "matplotlib",
    "pyarrow",
    "torchvision",
}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if "conf" not in path.parts)


def layer(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names if node.module == "lshbench")
    return names


def test_no_module_imports_itself_in_a_circle() -> None:
    names = {path: "lshbench." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in modules()}
    known = {name.removesuffix(".__init__"): path for path, name in names.items()}
    graph = {}
    for name, path in known.items():
        used = {found for found in imported(path) | members(path) if found in known and found != name}
        # A package's own modules make it up: importing them there is no circle.
        graph[name] = {found for found in used if not found.startswith(f"{name}.")}
    graphlib.TopologicalSorter(graph).prepare()


def members(path: Path) -> set[str]:
    """Return what ``from package import name`` names: modules among them count."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.ImportFrom)]
    return {f"{node.module}.{alias.name}" for node in nodes for alias in node.names}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_what_lies_below_it(path: Path) -> None:
    own = layer(path)
    used = {name.split(".")[1] for name in imported(path) if name.startswith("lshbench.")}
    used -= {own, "__version__", *BASE}
    assert own in ALLOWED, f"{own} is not in the import rule: add it there and to ARCHITECTURE.md"
    assert used <= ALLOWED[own], f"{own} imports {sorted(used - ALLOWED[own])}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_command_line_knows_hydra_and_pure_layers_stay_pure(path: Path) -> None:
    outside = {name.split(".")[0] for name in imported(path)}
    assert not outside & FORBIDDEN.get(layer(path), set())
    if layer(path) != "commands":
        assert not outside & {"hydra", "omegaconf"}


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["ls"], ["--version"], ["search", "RUN"], ["report", "RUN"], ["verify", "RUN"], ["tune", "--help"]],
    ids=" ".join,
)
def test_light_commands_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['lshbench', *{arguments!r}]\n"
        "from lshbench.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"found = sorted({HEAVY!r} & set(sys.modules))\n"
        "assert not found, found\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
