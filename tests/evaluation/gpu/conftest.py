from pathlib import Path

import pytest

from tests.evaluation.gpu import nvml


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nvml.compile_library(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def fake(nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nvml.FakeNvml:
    """A stand-in driver with one idle GPU, for every process started during the test."""
    folder = tmp_path / "fake-nvml"
    folder.mkdir()
    driver = nvml.FakeNvml(folder, nvml_library)
    for name, value in driver.environment().items():
        monkeypatch.setenv(name, value)
    return driver
