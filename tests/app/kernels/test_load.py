"""app.kernels.load: which image is used, with stand-ins for the driver and the GPU."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from app.kernels import load
from app.kernels.driver import DriverError

CUDA = torch.device("cuda")
IMAGES = [("cubin sm_90", b"cubin"), ("PTX compute_75", b"ptx")]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(major=9, minor=0, multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: name)
    monkeypatch.setattr(load, "Driver", lambda library: library)
    monkeypatch.setattr(load, "images_for", lambda *_: iter(IMAGES))
    monkeypatch.setattr(load, "NormKernel", lambda driver, image, number, stream: image)
    monkeypatch.setattr(load, "works", lambda kernel, device: True)


def chosen() -> tuple[Any, str]:
    return load.load_norm_kernel(CUDA)


@pytest.mark.usefixtures("gpu")
def test_the_first_that_works_is_used() -> None:
    assert chosen() == (b"cubin", "norm kernel: cubin sm_90")


@pytest.mark.usefixtures("gpu")
def test_one_that_fails_its_trial_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "works", lambda kernel, device: kernel == b"ptx")
    assert chosen() == (b"ptx", "norm kernel: PTX compute_75")
    monkeypatch.setattr(load, "works", lambda kernel, device: False)
    none = "no norm kernel for sm_90, torch's own operations"
    assert chosen() == (None, none)


@pytest.mark.usefixtures("gpu")
def test_nor_one_that_the_driver_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_image(driver: Any, image: bytes, number: int, stream: Any) -> bytes:
        if image == b"cubin":
            raise DriverError("no kernel image")
        return image

    monkeypatch.setattr(load, "NormKernel", load_image)
    assert chosen()[0] == b"ptx"


@pytest.mark.usefixtures("gpu")
def test_without_a_driver_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    kernel, phrase = chosen()
    assert kernel is None
    assert "libcuda.so.1: cannot open" in phrase
