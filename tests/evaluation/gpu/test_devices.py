from typing import Any

import pytest

from evaluation.errors import EvaluationError
from evaluation.gpu import devices
from evaluation.gpu.devices import Gpu
from tests.evaluation.gpu.nvml import FakeDevice, FakeNvml

A, B = FakeDevice("GPU-1", name="NVIDIA A"), FakeDevice("GPU-2", 8192, name="NVIDIA B")
LOST = FakeDevice("GPU-3", total_mib=0)
MIG = (FakeDevice("GPU-1"), FakeDevice("GPU-2"), FakeDevice("MIG-7", 4864, parent=1))


def test_none_asks_nobody(fake: FakeNvml) -> None:
    fake.update(hang_s=0.0)
    assert devices.find("none") is None


@pytest.mark.parametrize(
    ("fields", "choice", "expected"),
    [
        ({}, None, Gpu("GPU-1", "Stand-in GPU", "999.0", 24576.0, "v2")),
        ({"api": "v1"}, None, Gpu("GPU-1", "Stand-in GPU", "999.0", 24576.0, "v1")),
        ({"devices": (A, B)}, "GPU-2", Gpu("GPU-2", "NVIDIA B", "999.0", 8192.0, "v2")),
        ({"devices": MIG}, "MIG-7", Gpu("MIG-7", "Stand-in GPU", "999.0", 4864.0, "v2")),
        ({"devices": (A, LOST)}, "GPU-1", Gpu("GPU-1", "NVIDIA A", "999.0", 24576.0, "v2")),
    ],
    ids=["the only one", "an old driver", "one of two", "a MIG instance", "beside a broken one"],
)
def test_a_gpu_is_found(
    fake: FakeNvml, fields: dict[str, Any], choice: str | None, expected: Gpu
) -> None:
    fake.update(**fields)
    assert devices.find(choice) == expected


@pytest.mark.parametrize(
    ("fields", "choice", "said"),
    [
        ({}, "GPU-9", r"GPU GPU-9 is not here: GPU-1 \(Stand-in GPU, 24576 MiB\)"),
        ({"devices": (A, B)}, None, r"GPU-1 \(NVIDIA A, 24576 MiB\); GPU-2 \(NVIDIA B, "),
        ({"devices": MIG}, "GPU-2", r"is not here: GPU-1 \(.*\); MIG-7 \(.*\)$"),
        ({"devices": (A, LOST)}, None, r"GPU-1 .*; number 1 does not work \(GPU is lost\)"),
        ({"init_code": 18}, None, "NVML says 'RM has detected an NVML/RM version mis"),
    ],
    ids=["not here", "several", "a GPU that is split", "one is broken", "the driver fails"],
)
def test_a_gpu_that_is_not_found_is_answered_with_those_that_are_there(
    fake: FakeNvml, fields: dict[str, Any], choice: str | None, said: str
) -> None:
    fake.update(**fields)
    with pytest.raises(EvaluationError, match=said):
        devices.find(choice)


def test_all_that_work_are_found_and_the_others_said(fake: FakeNvml) -> None:
    fake.update(devices=(A, B, LOST))
    found, said = devices.every()
    assert [gpu.uuid for gpu in found] == ["GPU-1", "GPU-2"]
    assert said == "number 2 does not work (GPU is lost)"
    fake.update(devices=(LOST,))
    with pytest.raises(EvaluationError, match="no GPU of this machine works: number 0 does not"):
        devices.every()


def test_without_nvml_there_is_no_gpu(fake: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    # A file that is no library hides a real one, should this machine have it.
    (fake.folder / fake.built.name).touch()
    monkeypatch.setenv("LD_LIBRARY_PATH", str(fake.folder))
    assert devices.find(None) is None
    with pytest.raises(EvaluationError, match="GPU GPU-1 is not here: there is no GPU"):
        devices.find("GPU-1")


def test_driver_that_hangs_is_noticed(fake: FakeNvml) -> None:
    fake.update(hang_s=0.0)
    with pytest.raises(EvaluationError, match=r"did not answer within 0\.5 s"):
        devices.find(None, timeout_s=0.5)
