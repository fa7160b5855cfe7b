"""app.lean.stand_ins on a small library made for it."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.app.conftest import python
from tests.nnunet_models import ROOT

LIBRARY = {
    "lib/__init__.py": """
        import lib.order
        import lib.heavy
        import lib.heavy.real
        import lib.heavy.low
        from lib.heavy import Base, register, table, is_available, Alias

        order = lib.order.seen

        class Derived(Base, keyword=1):
            pass

        @register
        def plain():
            return "plain"

        @register("with", arguments=2)
        def decorated():
            return "decorated"

        table[Derived] = plain
        kinds = [*table]
        Maybe = Alias | None
        with lib.heavy.guard():
            inside = True
        available = "yes" if is_available() else "no"

        def late():
            return lib.heavy.compute()

        def caught():
            try:
                return lib.heavy.compute()
            except Exception:
                return "hidden"

        def dunder():
            return hasattr(lib.heavy, "__version__")
        """,
    "lib/order.py": "seen = []",
    "lib/heavy/__init__.py": """
        import lib.first
        raise AssertionError("executed")
        """,
    "lib/heavy/real.py": "import lib.order; lib.order.seen.append('real')",
    "lib/heavy/low.py": "raise AssertionError('executed')",
    "lib/first.py": "import lib.order; lib.order.seen.append('first')",
    "lib/late_one.py": "x = 1",
}
LEFT_OUT = {"lib.heavy": ["lib.first"], "lib.heavy.low": [], "lib.late_one": []}
HEAD = f"""
import json
from app.lean.stand_ins import StandIns, Surprise, left_out_module
stand_ins = StandIns({LEFT_OUT!r})
import lib
stand_ins.seal()

def surprise(call):
    try:
        return call()
    except Surprise as error:
        return f"Surprise {{error}}"
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("library")
    for name, content in LIBRARY.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(content))
    return folder


def told(library: Path, expression: str) -> Any:
    """What ``expression`` is in a process of its own that has imported the library."""
    code = f"{HEAD}\nprint(json.dumps({expression}))"
    return json.loads(python("-c", code, PYTHONPATH=f"{library}:{ROOT}").stdout)


def test_what_imports_a_stand_in_is_imported(library: Path) -> None:
    expression = "[lib.plain(), lib.decorated(), lib.kinds, lib.inside, lib.available]"
    assert told(library, expression) == ["plain", "decorated", [], True, "no"]


def test_what_it_would_import_first_still_is(library: Path) -> None:
    """A submodule of a stand-in that is not left out is real, and all come in their order."""
    assert told(library, "lib.order") == ["first", "real"]


def test_nothing_is_an_instance_of_what_was_left_out(library: Path) -> None:
    expression = "[isinstance(1, lib.Base), isinstance(1, lib.Derived), issubclass(int, lib.Base)]"
    assert told(library, expression) == [False] * 3
    assert told(library, "stand_ins.surprise is None") is True


@pytest.mark.parametrize(
    ("call", "found"),
    [
        ("lib.late", "lib.heavy.compute"),
        ("lib.caught", "lib.heavy.compute"),
        ("lib.Derived", "lib.heavy.Derived"),
        ("lib.Base", "lib.heavy.Base"),
        ("lambda: lib.Base.method", "lib.heavy.Base"),
        ("lambda: lib.table[0]", "lib.heavy.table"),
        ("lambda: list(lib.table)", "lib.heavy.table"),
        ("lambda: len(lib.table)", "lib.heavy.table"),
        ("lambda: 1 in lib.table", "lib.heavy.table"),
        ("lambda: bool(lib.table)", "lib.heavy.table"),
        ("lambda: lib.Alias | int", "lib.heavy.Alias"),
        ("lambda: __import__('lib.late_one')", "lib.late_one"),
        ("lambda: lib.heavy.low.anything", "lib.heavy.low.anything"),
    ],
)
def test_once_sealed_it_is_a_surprise(library: Path, call: str, found: str) -> None:
    assert told(library, f"surprise({call})") == f"Surprise {found}"


def test_a_surprise_that_somebody_catches_is_known(library: Path) -> None:
    expression = "[surprise(lib.late), surprise(lib.Base), str(stand_ins.surprise)]"
    assert told(library, expression)[1:] == ["Surprise lib.heavy.Base", "lib.heavy.compute"]


def test_asking_for_what_python_itself_asks_for_is_none(library: Path) -> None:
    assert told(library, "[lib.dunder(), stand_ins.surprise is None]") == [False, True]


def test_what_stands_in_is_told_from_what_is_real(library: Path) -> None:
    values = "(lib.Base, lib.Derived, lib.heavy, lib.heavy.low, lib.plain, 1)"
    expected = ["lib.heavy", "lib.heavy", "lib.heavy", "lib.heavy.low", None, None]
    assert told(library, f"[left_out_module(v) for v in {values}]") == expected
