"""Which room may import what of the others, by the import statements in its files."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("app", "benchmarks", "evaluation", "examples", "tests", "training", "volumes")

# The rooms that each may import, itself apart; tests may import any.
ALLOWED = {
    "app": {"volumes"},
    "benchmarks": {"app", "evaluation", "examples", "training", "volumes"},
    "evaluation": {"volumes"},
    "examples": {"app", "evaluation", "volumes"},
    "training": {"app", "evaluation", "volumes"},
    "volumes": set(),
}
# Of these two rooms training uses no more than the modules that are named here.
OF_TRAINING = {
    "app": {"app.image", "app.load", "app.model", "app.model_rules", "app.networks", "app.predict"},
    "evaluation": {
        "evaluation.challenges",
        "evaluation.numbers",
        "evaluation.parent",
        "evaluation.scoring",
        "evaluation.tables.csv_file",
        "evaluation.tables.markup",
    },
}
# Modules that training/lesion_filter.py still imports beside them.
LESION_FILTER = {"app.lesion_filter", "app.memory.budget", "app.preprocess"}


def imported(file: Path) -> Iterator[str]:
    """The modules that a file imports anywhere in it; relative imports are its own room's."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports_of(room: str) -> set[tuple[str, str]]:
    """Each file of a room with a module that it imports."""
    files = (ROOT / room).rglob("*.py")
    return {(str(f.relative_to(ROOT)), module) for f in files for module in imported(f)}


@pytest.mark.parametrize("room", ALLOWED)
def test_rooms_that_are_not_entered(room: str) -> None:
    foreign = set(ROOMS) - ALLOWED[room] - {room}
    if room == "evaluation":
        foreign.add("torch")
    assert not {(f, m) for f, m in imports_of(room) if m.partition(".")[0] in foreign}


def test_training_enters_by_the_declared_modules() -> None:
    for room, modules in OF_TRAINING.items():
        for file, module in imports_of("training"):
            allowed = modules | (LESION_FILTER if file == "training/lesion_filter.py" else set())
            inside = any(f"{module}.".startswith(f"{name}.") for name in allowed)
            assert inside or module.partition(".")[0] != room or module in ROOMS, (file, module)


def test_an_import_is_seen_wherever_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text("def late():\n    from app import model\n    import torch.nn as nn\n")
    assert set(imported(file)) == {"app", "app.model", "torch.nn"}
