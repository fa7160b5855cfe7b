"""How many small faults do the tests notice? Changes one place of the source at a time.

``python -m benchmarks.mutants --output DIR [--tree DIR] [--again FILE]``

A place is a comparison, a sum or product, `and`/`or`, `not`, a number or a truth value in one of
the ROOMS; which ones is drawn from a seed. For each, the tests that name the module (where none
does: those of its folder) are run in a copy of the tree until one fails, and the mutant is killed,
or none does. ``--again`` takes those of an earlier report whose line still exists, whatever file it
is in now, so that two versions of the source can be compared.
"""

from __future__ import annotations

import ast
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.command_line import exit_code, parser
from benchmarks.programs import ROOT
from evaluation.numbers import positive
from volumes.files import write_whole

ROOMS = ("app", "volumes", "evaluation", "training", "benchmarks", "examples")
TIMEOUT_S = 400.0
PASSED, NONE_COLLECTED = 0, 5  # pytest's exit codes
CRASH = "crash"
SWAPS: dict[type[ast.AST], tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.And: ("and", "or"),
    ast.Or: ("or", "and"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
}


@dataclass(frozen=True)
class Mutant:
    """One place and what becomes of its line; line: its number, from 1."""

    path: str
    line: int
    before: str
    after: str


def mutants(tree: Path) -> list[Mutant]:
    """Return every mutant of a tree, in the order of files and places."""
    files = [path for room in ROOMS for path in sorted((tree / room).rglob("*.py"))]
    return [one for path in files for one in _in_file(tree, path)]


def _in_file(tree: Path, path: Path) -> Iterator[Mutant]:
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        for line, start, end, new in _changes(node, lines):
            before = lines[line - 1]
            after = before.encode()[:start].decode() + new + before.encode()[end:].decode()
            yield Mutant(path.relative_to(tree).as_posix(), line, before, after)


def _changes(node: ast.AST, lines: Sequence[str]) -> Iterator[tuple[int, int, int, str]]:
    """Yield line, first and last byte, and what is to stand there."""
    if isinstance(node, ast.Compare):
        for left, op, right in zip(
            [node.left, *node.comparators], node.ops, node.comparators, strict=False
        ):
            yield from _between(left, op, right, lines)
    elif isinstance(node, ast.BinOp):
        yield from _between(node.left, node.op, node.right, lines)
    elif isinstance(node, ast.BoolOp):
        yield from _between(node.values[0], node.op, node.values[1], lines)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.lineno, node.col_offset, node.col_offset + len("not "), ""
    elif isinstance(node, ast.Constant) and node.end_lineno == node.lineno:
        assert node.end_col_offset is not None
        if isinstance(node.value, bool):
            yield node.lineno, node.col_offset, node.end_col_offset, str(not node.value)
        elif isinstance(node.value, int | float):
            yield node.lineno, node.col_offset, node.end_col_offset, f"({node.value!r} + 1)"


def _between(
    left: ast.expr, op: ast.AST, right: ast.expr, lines: Sequence[str]
) -> Iterator[tuple[int, int, int, str]]:
    """Yield the change of an operator that stands on one line with both its sides."""
    if type(op) not in SWAPS or left.end_lineno != right.lineno:
        return
    assert left.end_col_offset is not None
    old, new = SWAPS[type(op)]
    gap = lines[right.lineno - 1].encode()[left.end_col_offset : right.col_offset].decode()
    found = re.search(rf"(?<![\w*/<>=!]){re.escape(old)}(?![\w*/<>=])", gap)
    if found:
        start = left.end_col_offset + len(gap[: found.start()].encode())
        yield right.lineno, start, start + len(old), new


def tests_of(tree: Path, path: str) -> list[str]:
    """Return the test files that name a module, or its own folder of tests."""
    module = path.removesuffix(".py").removesuffix("/__init__").removesuffix("/__main__")
    package, _, name = module.replace("/", ".").rpartition(".")
    dotted = re.compile(
        rf"\b{re.escape(module.replace('/', '.'))}\b"
        rf"|from {re.escape(package)} import [^\n]*\b{re.escape(name)}\b"
    )
    files = sorted((tree / "tests").rglob("test_*.py"))
    named = [one for one in files if dotted.search(one.read_text(encoding="utf-8"))]
    mirrored = [one for one in files if one.parent == tree / "tests" / module]
    own = [one for one in files if one.stem == f"test_{Path(module).name}"]
    found = [*own, *named, *mirrored] or [
        one for one in files if one.parent == tree / "tests" / Path(path).parent
    ]
    return [one.relative_to(tree).as_posix() for one in dict.fromkeys(found)]


def fate(tree: Path, mutant: Mutant) -> str:
    """Return what comes of changing the line: killed, survived or timeout.

    What fails with the line as it was, too, says nothing, and the rest decides. The tree is as
    before when this returns.
    """
    path = tree / mutant.path
    original = path.read_text(encoding="utf-8")
    lines = original.splitlines(keepends=True)
    lines[mutant.line - 1] = f"{mutant.after}\n"
    tests, broken = tests_of(tree, mutant.path), list[str]()
    while tests:
        path.write_text("".join(lines), encoding="utf-8")
        try:
            failed = _first_failure(tree, [*tests, *(f"--deselect={one}" for one in broken)])
        except subprocess.TimeoutExpired:
            return "timeout"
        finally:
            path.write_text(original, encoding="utf-8")
        if failed is None:
            break
        if failed == CRASH or _first_failure(tree, [failed]) is None:
            return "killed"
        broken.append(failed)
        tests = [one for one in tests if one != failed]  # a file that cannot be imported
    return "survived"


def _first_failure(tree: Path, arguments: Sequence[str]) -> str | None:
    """Return the first test, or file of tests, that fails; CRASH if Python does, None if none."""
    command = [sys.executable, "-B", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-rfE"]
    ended = subprocess.run(
        [*command, *arguments],
        cwd=tree,
        timeout=TIMEOUT_S,
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode < 0:  # ended by a signal
        return CRASH
    found = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", ended.stdout, re.MULTILINE)
    assert found or ended.returncode in (PASSED, NONE_COLLECTED), ended.stdout + ended.stderr
    return found and found[1]


def chosen(tree: Path, most: int, seed: int) -> list[Mutant]:
    """Return so many mutants, each of another line, drawn from a seed."""
    found = mutants(tree)
    random.Random(seed).shuffle(found)
    by_line = {(one.path, one.line): one for one in reversed(found)}
    kept = [one for one in found if by_line[one.path, one.line] is one]
    return kept[:most]


def still_there(tree: Path, earlier: Sequence[Mutant]) -> list[Mutant]:
    """Return those mutants whose line and change exist in a tree, in whichever file."""
    known: dict[tuple[str, str], Mutant] = {}
    for one in mutants(tree):
        known.setdefault((one.before.strip(), one.after.strip()), one)
    found = (known.get((one.before.strip(), one.after.strip())) for one in earlier)
    return [one for one in found if one is not None]


def earlier(file: Path) -> list[Mutant]:
    """Return the mutants of a report."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [Mutant(**{name: one[name] for name in Mutant.__annotations__}) for one in lines]


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    options = parser("mutants", __doc__)
    options.add_argument(
        "--tree", type=Path, default=ROOT, help="source and tests (default: these)"
    )
    options.add_argument("--count", type=positive(int), default=60)
    options.add_argument("--seed", type=int, default=2024)
    options.add_argument("--again", type=Path, help="an earlier mutants.jsonl")
    given = options.parse_args(arguments)

    def do() -> bool:
        with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
            tree = copied(given.tree, Path(folder) / "tree")
            if given.again is None:
                todo = chosen(tree, given.count, given.seed)
            else:
                todo = still_there(tree, earlier(given.again))
            fates, lines = Counter[str](), list[str]()
            for mutant in todo:
                came_to = fate(tree, mutant)
                fates[came_to] += 1
                lines.append(json.dumps(asdict(mutant) | {"fate": came_to}))
                write_whole(given.output / "mutants.jsonl", "\n".join(lines) + "\n")
                print(f"{came_to:8} {mutant.path}:{mutant.line} {mutant.after.strip()}", flush=True)
        print(", ".join(f"{number} {what}" for what, number in sorted(fates.items())))
        return True

    return exit_code(do)


def copied(source: Path, tree: Path) -> Path:
    """Copy a tree, without what is made in it; its environments are used where they are."""
    ignored = shutil.ignore_patterns(".git", ".venv*", "runs", "__pycache__", ".*_cache")
    shutil.copytree(source, tree, ignore=ignored)
    for environment in (".venv", ".venv-nnunet"):
        if (source / environment).exists():
            (tree / environment).symlink_to((source / environment).resolve())
    return tree


if __name__ == "__main__":
    sys.exit(main())
