"""What a module's own functions refer to, found without calling them."""

from __future__ import annotations

import dis
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any


def referred_to_by(module: ModuleType) -> Iterator[Any]:
    """Whatever global names, and attributes of modules, its functions and methods read.

    Also the names of modules that they import, and what they import from these, with a dot between.
    """
    for function in _functions(module):
        for code in _codes(function.__code__):
            yield from _read_by(code, function.__globals__)


def _functions(module: ModuleType) -> Iterator[FunctionType]:
    spaces = [module, *(v for v in vars(module).values() if isinstance(v, type))]
    for value in [value for space in spaces for value in vars(space).values()]:
        bare = getattr(value, "fget", None) or getattr(value, "__func__", value)
        bare = getattr(bare, "__wrapped__", bare)
        if isinstance(bare, FunctionType) and bare.__module__ == module.__name__:
            yield bare


def _codes(code: CodeType) -> Iterator[CodeType]:
    """The code and that of functions within."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _read_by(code: CodeType, names: dict[str, Any]) -> Iterator[Any]:
    value: Any = None
    imported = ""
    for step in dis.get_instructions(code):
        if step.opname == "IMPORT_NAME":
            imported = step.argval
            yield imported
        if step.opname == "IMPORT_FROM":
            yield f"{imported}.{step.argval}"
        if step.opname == "LOAD_GLOBAL":
            value = names.get(step.argval)
        elif step.opname in ("LOAD_ATTR", "LOAD_METHOD") and isinstance(value, ModuleType):
            value = vars(value).get(step.argval)
        else:
            value = None
        if value is not None:
            yield value
