"""app.lean.references: what functions read is found without a call."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from app.lean.references import referred_to_by

SOURCE = """
import os, os.path, json, functools

constant = 1

def function():
    return os.path.sep, constant

def outer():
    def inner():
        import xml.dom
        from email import policy
        return json.dumps
    return inner

class Class:
    def method(self):
        return len(os.sep)

    @property
    def value(self):
        return os.linesep

    @classmethod
    def made(cls):
        return os.curdir

    @functools.lru_cache
    def cached(self):
        return os.pardir

from json import loads  # a function of another module
"""


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("made_up")
    monkeypatch.setitem(sys.modules, "made_up", module)
    exec(SOURCE, vars(module))
    return module


def test_globals_and_attributes_of_modules(module: types.ModuleType) -> None:
    import json
    import os

    found = list(referred_to_by(module))
    for value in (os, os.path, os.sep, os.linesep, os.curdir, os.pardir, json, json.dumps, 1):
        assert value in found
    assert "xml.dom" in found
    assert "email.policy" in found
    assert json.loads not in found


def test_a_function_of_another_module_is_its_own_business(tmp_path: Path) -> None:
    import json

    module = types.ModuleType("made_up")
    vars(module)["loads"] = json.loads
    assert list(referred_to_by(module)) == []
