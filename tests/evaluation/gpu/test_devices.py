import time

import pytest

from evaluation.errors import EvaluationError
from evaluation.gpu import devices
from tests.evaluation.gpu.nvml import FakeDevice, FakeNvml

TWO = (FakeDevice("GPU-1", name="NVIDIA A"), FakeDevice("GPU-2", 8192, name="NVIDIA B"))
MIG = (FakeDevice("GPU-1"), FakeDevice("GPU-2"), FakeDevice("MIG-7", 4864, parent=1))


def test_none_asks_nobody(fake: FakeNvml) -> None:
    fake.hang_s = 0.0
    fake.update()
    assert devices.find("none") is None


def test_only_gpu_is_found_by_itself(fake: FakeNvml) -> None:
    expected = devices.Gpu("GPU-1", "Stand-in GPU", "999.0", 24576.0, "v2")
    assert devices.find(None) == expected


def test_old_driver_has_api_v1(fake: FakeNvml) -> None:
    fake.api = "v1"
    fake.update()
    gpu = devices.find(None)
    assert gpu is not None
    assert gpu.api == "v1"


def test_one_of_two_must_be_chosen_by_uuid(fake: FakeNvml) -> None:
    fake.devices = TWO
    fake.update()
    with pytest.raises(EvaluationError, match=r"GPU-1 \(NVIDIA A, 24576 MiB\); GPU-2 \(NVIDIA B, "):
        devices.find(None)
    gpu = devices.find("GPU-2")
    assert gpu is not None
    assert (gpu.uuid, gpu.name, gpu.total_mib) == ("GPU-2", "NVIDIA B", 8192)


def test_gpu_that_is_not_here_is_answered_with_those_that_are(fake: FakeNvml) -> None:
    with pytest.raises(EvaluationError, match=r"GPU GPU-9 is not here: GPU-1 \(Stand-in GPU, 24"):
        devices.find("GPU-9")


def test_mig_instances_stand_for_their_gpu(fake: FakeNvml) -> None:
    fake.devices = MIG
    fake.update()
    gpu = devices.find("MIG-7")
    assert gpu is not None
    assert (gpu.uuid, gpu.total_mib) == ("MIG-7", 4864)
    with pytest.raises(EvaluationError, match=r"is not here: GPU-1 \(.*\); MIG-7 \(.*\)$"):
        devices.find("GPU-2")


def test_broken_gpu_is_named_and_does_not_hide_the_other(fake: FakeNvml) -> None:
    fake.devices = (TWO[0], FakeDevice("GPU-2", total_mib=0))
    fake.update()
    gpu = devices.find("GPU-1")
    assert gpu is not None
    with pytest.raises(EvaluationError, match=r"GPU-1 .*; number 1 does not work \(GPU is lost\)"):
        devices.find(None)


def test_all_that_work_are_found_and_the_others_said(fake: FakeNvml) -> None:
    fake.devices = (*TWO, FakeDevice("GPU-3", total_mib=0))
    fake.update()
    found, said = devices.every()
    assert [gpu.uuid for gpu in found] == ["GPU-1", "GPU-2"]
    assert said == "number 2 does not work (GPU is lost)"
    fake.devices = fake.devices[2:]
    fake.update()
    with pytest.raises(EvaluationError, match="no GPU of this machine works: number 0 does not"):
        devices.every()


def test_without_nvml_there_is_no_gpu(fake: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    # A file that is no library hides a real one, should this machine have it.
    (fake.folder / fake.built.name).touch()
    monkeypatch.setenv("LD_LIBRARY_PATH", str(fake.folder))
    assert devices.find(None) is None
    with pytest.raises(EvaluationError, match="GPU GPU-1 is not here: there is no GPU"):
        devices.find("GPU-1")


def test_driver_that_fails_is_quoted(fake: FakeNvml) -> None:
    fake.init_code = 18
    fake.update()
    with pytest.raises(EvaluationError, match="NVML says 'RM has detected an NVML/RM version mis"):
        devices.find(None)


def test_driver_that_hangs_is_noticed(fake: FakeNvml) -> None:
    fake.hang_s = 0.0
    fake.update()
    start_s = time.monotonic()
    with pytest.raises(EvaluationError, match=r"did not answer within 0\.5 s"):
        devices.find(None, timeout_s=0.5)
    assert time.monotonic() - start_s < devices._KILL_S + 0.5
