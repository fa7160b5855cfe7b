"""Which compiled form of norm.cu is taken, and that all of them can be made."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.kernels import nvrtc
from app.kernels.compile import ARCHITECTURES, compile_all
from app.kernels.images import SOURCE, cubin_name, ptx_name, source_key
from app.kernels.load import images_for
from app.kernels.nvrtc import Nvrtc, NvrtcError, find_nvrtc

KEY = source_key(SOURCE.read_bytes())


class Compiler:
    architectures = (75, 80, 90)

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails

    def cubin(self, source: bytes, architecture: int) -> bytes:
        if self.fails:
            raise NvrtcError("no")
        return b"now"


def names(capability: int, folder: Path, compiler: Compiler | None = None) -> list[str]:
    return [name for name, _ in images_for(capability, folder, lambda: compiler)]  # type: ignore[arg-type,return-value]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for architecture in (75, 80, 86, 90):
        (tmp_path / cubin_name(KEY, architecture)).write_bytes(b"cubin")
    (tmp_path / ptx_name(KEY, 75)).write_bytes(b"ptx")
    (tmp_path / cubin_name("0" * 12, 89)).write_bytes(b"of another norm.cu")
    return tmp_path


def test_the_nearest_cubin_then_ptx_then_nvrtc(folder: Path, tmp_path: Path) -> None:
    assert names(90, folder, Compiler()) == [
        "cubin sm_90",
        "PTX compute_75",
        "compiled now for sm_90",
    ]
    assert names(89, folder) == ["cubin sm_86", "cubin sm_80", "PTX compute_75"]
    assert names(120, folder, Compiler()) == ["PTX compute_75"]
    assert names(61, folder, Compiler()) == []
    empty = tmp_path / "empty"
    empty.mkdir()
    assert names(80, empty, Compiler()) == ["compiled now for sm_80"]
    assert names(80, empty, Compiler(fails=True)) == []
    assert names(80, empty) == []


def test_all_architectures_compile(tmp_path: Path) -> None:
    """Without a GPU: each cubin is an ELF file that holds the three kernels."""
    compiler = find_nvrtc()
    assert compiler is not None, "the extra `dev` brings nvidia-cuda-nvrtc"
    line = compile_all(compiler, SOURCE.read_bytes(), tmp_path)
    assert line == (
        "kernels: compiled sm_75 sm_80 sm_86 sm_89 sm_90 sm_100 sm_120 and PTX compute_75"
    )
    for architecture in ARCHITECTURES:
        image = (tmp_path / cubin_name(KEY, architecture)).read_bytes()
        assert image.startswith(b"\x7fELF")
        assert all(b".text." + name in image for name in (b"moments", b"combine", b"apply"))
    ptx = (tmp_path / ptx_name(KEY, 75)).read_text()
    assert all(f".entry {name}(" in ptx for name in ("moments", "combine", "apply"))


def test_a_source_that_does_not_compile_leaves_what_was_there(folder: Path) -> None:
    compiler = find_nvrtc()
    assert compiler is not None
    before = sorted(folder.iterdir())
    with pytest.raises(NvrtcError, match="sm_75"):
        compile_all(compiler, b"this is no CUDA", folder)
    assert sorted(folder.iterdir()) == before


def test_what_is_no_nvrtc_is_passed_over() -> None:
    def load(path: str) -> Nvrtc:
        if path == "absent":
            raise OSError
        if path == "old":
            raise AttributeError
        return found

    found = object.__new__(Nvrtc)
    assert nvrtc.first_nvrtc(["absent", "old", "good"], load) is found
    assert nvrtc.first_nvrtc(["absent"], load) is None
