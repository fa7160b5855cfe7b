"""Modules that are left out of an import: stand-ins that are inert while others are imported.

What is imported may derive from a stand-in's classes, decorate with them and put them into tables,
as most of torch's modules do with each other. Once all is imported they are sealed: whatever then
asks for something that was left out gets a Surprise. ``isinstance`` remains what it was: nothing
is an instance of a class that was left out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

LeftOut = Mapping[str, Sequence[str]]


class Surprise(BaseException):
    """Something was needed that had been left out; no library's ``except Exception`` hides it."""


class StandIns(MetaPathFinder, Loader):
    """Puts a stand-in in the place of each module of ``left_out`` that is imported from now on.

    ``left_out`` says of each of them which modules it would be the first to import: they still are
    then, left out or not, as what follows counts on them and on their order. ``surprise`` is the
    first Surprise, as somebody may have caught it. One per process.
    """

    def __init__(self, left_out: LeftOut) -> None:
        self._left_out = left_out
        self._sealed = False
        self.surprise: Surprise | None = None
        _Inert.owner = self
        sys.meta_path.insert(0, self)

    def seal(self) -> None:
        """From now on nothing that was left out may be asked for."""
        self._sealed = True

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Ours for what is left out; None for everything else, submodules of these included."""
        if name not in self._left_out:
            return None
        self.touch(name)
        spec = ModuleSpec(name, self, is_package=True)
        below = name.rpartition(".")[2]
        spec.submodule_search_locations = [f"{folder}/{below}" for folder in path or ()]
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """A module of which every attribute is an inert class."""
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Import what the module would have been the first to import."""
        for name in self._left_out[module.__name__]:
            import_module(name)

    def touch(self, module: str, name: str = "") -> None:
        """Something of ``module`` is asked for; raises Surprise once sealed."""
        self.note(module)
        if self._sealed:
            surprise = Surprise(f"{module}.{name}" if name else module)
            self.surprise = self.surprise or surprise
            raise surprise

    def note(self, module: str) -> None:
        """Something of ``module`` is asked for, if only by Python itself: for whoever searches."""


def left_out_module(value: object) -> str | None:
    """The module that was left out and that ``value`` stands in for, or for something of it."""
    if isinstance(value, _StandIn):
        return value.__name__
    return value.__left_out__ if isinstance(value, _Inert) else None


class _Inert(type):
    """Classes that do nothing, of which everything asked for is again such a class."""

    owner: StandIns
    __left_out__: str  # the module that each of them, and what derives from it, comes from

    def _touch(cls) -> None:
        _Inert.owner.touch(cls.__left_out__, cls.__qualname__)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        cls._touch()
        if len(args) == 1 and not kwargs and callable(args[0]):
            return args[0]  # a decorator
        return cls

    def __getattr__(cls, name: str) -> Any:
        if _is_dunder(name):
            raise AttributeError(name)
        cls._touch()
        return _inert(cls.__left_out__, f"{cls.__qualname__}.{name}")

    def __getitem__(cls, _: object) -> Any:
        cls._touch()
        return cls

    def __setitem__(cls, _: object, value: object) -> None:
        cls._touch()

    def __or__(cls, _: object) -> Any:
        cls._touch()
        return cls

    __ror__ = __or__

    def __iter__(cls) -> Iterator[Any]:
        cls._touch()
        return iter(())

    def __len__(cls) -> int:
        cls._touch()
        return 0

    def __contains__(cls, _: object) -> bool:
        cls._touch()
        return False

    def __bool__(cls) -> bool:
        cls._touch()
        return False  # as in "if distributed.is_available()"

    def __enter__(cls) -> Any:
        cls._touch()
        return cls

    def __exit__(cls, *_: object) -> None:
        cls._touch()


def _inert(module: str, name: str) -> Any:
    namespace = {
        "__module__": module,
        "__qualname__": name,
        "__left_out__": module,
        "__init_subclass__": classmethod(lambda cls, **_: None),
    }
    return _Inert(name.rpartition(".")[2], (), namespace)


class _StandIn(ModuleType):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__all__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if _is_dunder(name):
            _Inert.owner.note(self.__name__)
            raise AttributeError(name)
        _Inert.owner.touch(self.__name__, name)
        return _inert(self.__name__, name)


def _is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")
