"""The whole benchmark with stand-ins for the programs, on a small scan, without weights."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import programs
from benchmarks.programs import Command
from benchmarks.published import Weights
from benchmarks.sizes import __main__ as sizes
from benchmarks.sizes import versions
from evaluation.errors import EvaluationError
from examples import samples
from examples.samples import Sample
from tests.benchmarks.test_programs import SAID
from tests.nnunet_models import write_scan

SAYS_STAGES = "STAGES " + '{"network": 0.125}'


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the programs that were called, in order."""
    scan = write_scan(tmp_path / "lung1_0000.nii.gz", np.zeros((4, 16, 16)), (5.0, 2.0, 2.0))
    names: list[str] = []

    def stand_in(name: str, said: str) -> Any:
        def command(*_: Any) -> Command:
            names.append(name)
            return [sys.executable, "-c", f"print({said!r})"]

        return command

    monkeypatch.setattr(samples, "fetch", lambda _, names: [Sample("lung1", scan, tmp_path)])
    monkeypatch.setattr(sizes, "make_weights", lambda *_: Weights(tmp_path / "t", tmp_path / "m"))
    monkeypatch.setattr(sizes, "has_nnunet", lambda: True)
    monkeypatch.setattr(versions, "newest_release", lambda: None)
    monkeypatch.setattr(versions, "app_version", lambda: "v2")
    monkeypatch.setattr(versions, "nnunet_version", lambda: "2.8.1")
    monkeypatch.setattr(programs, "app_command", stand_in("app", SAID))
    monkeypatch.setattr(programs, "nnunet_command", stand_in("nnunet", "nothing"))
    monkeypatch.setattr(programs, "nnunet_stages_command", stand_in("staged", SAYS_STAGES))
    return names


def bench(tmp_path: Path, *more: str) -> int:
    return sizes.main(["--output", str(tmp_path / "out"), "--device", "cpu", *more])


def test_programs_take_turns_after_a_warm_up(
    tmp_path: Path, called: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(tmp_path, "--slices", "3", "5", "--repeats", "2") == 0
    first = ["app", "nnunet", "staged"] * 2
    assert called == ["app", "nnunet", *first, *["app", "nnunet"] * 2]
    printed = capsys.readouterr()
    assert (tmp_path / "out" / "sizes.md").read_text() in printed.out
    assert "3 slices without the network" in printed.out
    # 3 slices of 5 mm and 16 rows of 2 mm are one patch of 96 x 128 x 128 at 3 x 2 x 2 mm.
    assert "| 3 x 5 mm | 1 | 0.5 |" in printed.out
    assert "huang-5-nnunet-1: " in printed.err
    assert "warning: /a/x_0000.nii.gz: something" in printed.out


def test_a_run_that_was_interrupted_is_taken_up(
    tmp_path: Path, called: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bench(tmp_path, "--slices", "3") == 0
    called.clear()
    assert bench(tmp_path, "--slices", "3", "--resume") == 0
    assert called == []
    assert bench(tmp_path, "--slices", "3", "5", "--resume") == 0
    assert called == ["app", "nnunet", "app", "nnunet"]  # the first two warm up
    monkeypatch.setattr(versions, "app_version", lambda: "v3")
    assert bench(tmp_path, "--slices", "3", "--resume") == 1


def test_one_that_fails_does_not_stop_the_others(
    tmp_path: Path, called: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fails: Command = [sys.executable, "-c", "raise SystemExit('no memory')"]
    monkeypatch.setattr(programs, "app_command", lambda *_: fails)
    assert bench(tmp_path, "--slices", "3") == 0
    report = (tmp_path / "out" / "sizes.md").read_text()
    assert "huang 3 app: failed: exit code 1: no memory" in report
    assert "nnunet" in called


def test_a_previous_app_is_a_folder_or_a_reference(
    tmp_path: Path, called: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "old" / "app").mkdir(parents=True)
    (tmp_path / "old" / "app" / "__main__.py").touch()
    folder, version = versions.previous_app(str(tmp_path / "old"), tmp_path / "unused")
    assert folder == (tmp_path / "old").resolve()
    assert version.startswith(f"in {tmp_path / 'old'}")
    with pytest.raises(EvaluationError, match="neither a folder with an app/ nor a git reference"):
        versions.previous_app("no-such-reference", tmp_path / "unused")
    assert bench(tmp_path, "--programs", "app", "previous") == 1
    assert "there is no tag; name one by --previous" in capsys.readouterr().err
    old = str(tmp_path / "old")
    assert bench(tmp_path, "--slices", "3", "--programs", "previous", "--previous", old) == 0
    assert called == ["app", "app"]


@pytest.mark.parametrize("wrong", [["--slices", "0"], ["--repeats", "x"], ["--networks", "other"]])
def test_wrong_arguments(tmp_path: Path, wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        bench(tmp_path, *wrong)
    assert ended.value.code == 2
