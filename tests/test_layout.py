"""The house: which package may import which, late and typing-only imports included."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Each package, or module on the top level of one, imports only from rows above its own, and `search` from `trainable`.
ROWS = (
    ("trainable.commands",),
    ("trainable.errors",),
    ("trainable.cores", "trainable.files", "trainable.progress", "trainable.shapes", "trainable.streams"),
    ("trainable.config",),
    ("trainable.backbones", "trainable.data"),
    ("trainable.features",),
    ("trainable.training",),
    ("trainable.inference",),
    ("trainable.__main__",),
    ("search.space", "search.runs"),
    ("search.tune", "search.console", "search.mirror"),
    ("search.retrain",),
    ("search.report",),
    ("search.commands",),
)
ROW = {name: row for row, names in enumerate(ROWS) for name in names}
FACES = ("trainable", "search")  # they import what they show when somebody asks for it, and nobody imports them


def modules() -> dict[str, Path]:
    """Every module of the two packages, by its dotted name."""
    found = {}
    for top in FACES:
        for file in sorted((ROOT / top).rglob("*.py")):
            found[".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")] = file
    return found


def imports(file: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules of the two packages that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            assert not isinstance(node, ast.ImportFrom), f"{file}: imports are absolute here"
            continue
        for name in names:
            while name and name not in known:
                name = name.rpartition(".")[0]
            if name:
                yield name


MODULES = modules()
IMPORTS = {name: sorted(set(imports(file, MODULES))) for name, file in MODULES.items()}


def package(module: str) -> str:
    """The package that a module belongs to: `search.tune.study` is of `search.tune`."""
    return ".".join(module.split(".")[:2])


@pytest.mark.parametrize("module", [name for name in MODULES if name not in FACES])
def test_a_package_imports_only_from_those_before_it(module: str) -> None:
    own = package(module)
    wrong = [other for other in IMPORTS[module] if package(other) != own and ROW[package(other)] >= ROW[own]]
    assert not wrong, f"{module} imports {wrong}"


def test_no_module_imports_itself_over_others() -> None:
    try:
        TopologicalSorter({name: others for name, others in IMPORTS.items() if name not in FACES}).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


def test_every_package_stands_in_a_row() -> None:
    assert {package(name) for name in MODULES if name not in FACES} == set(ROW)


@pytest.mark.slow
def test_training_knows_neither_ray_nor_optuna_nor_swanlab_and_the_search_touches_no_tensor() -> None:
    foreign = {"trainable": {"ray", "optuna", "swanlab", "search"}, "search": {"torch", "torchaudio", "torchvision"}}
    for name, file in {**MODULES, "search.run_search": ROOT / "run_search.py"}.items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            wrong = {found.split(".")[0] for found in names} & foreign[name.split(".")[0]]
            assert not wrong, f"{name} imports {wrong}"
