"""The bench on a runner that takes as long as the test says."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace as changed

from evaluation import __main__ as command_line
from evaluation.bench import TINY, bench, spread
from evaluation.cases import Case, find
from evaluation.conditions import Conditions
from evaluation.gpu.devices import Gpu
from evaluation.record import Vram
from evaluation.runners import InfrastructureError, Job, Limits, Outcome, Runner
from evaluation.states import State
from evaluation.submission import Submission
from evaluation.trial import MeasuredRunner, Trial
from tests.evaluation.challenges import CONDITIONS
from tests.evaluation.records import VRAM
from tests.evaluation.scripted import ENDED_WELL, Scripted, write_mask
from tests.submissions import write_cases

GPU = Gpu("GPU-1", "Stand-in GPU", "580.1", 24576.0, "v2")
COLUMNS = ["size", "wall s", "runtime s", "start-up", "peak", "area", "over 4 GB", "verdict"]


def outcome(wall_s: float, **changes: Any) -> Outcome:
    """A run whose first process takes a second less than the whole."""
    end_s = ENDED_WELL.created_s + wall_s
    return replace(ENDED_WELL, finished_s=end_s, removed_s=end_s, **changes)


def walls(*seconds: float) -> list[Outcome]:
    return [outcome(one) for one in seconds]


def playing(left: Mapping[str, list[Outcome | Exception]]) -> Scripted:
    """Give each case its outcomes one after the other; where it ended well there is a mask."""

    def act(job: Job) -> Outcome:
        given = left[job.name].pop(0)
        if isinstance(given, Exception):
            raise given
        if given.exit_code == 0:
            write_mask(job)
        return given

    return Scripted(act)


def measured(
    folder: Path,
    script: Mapping[str, Sequence[Outcome | Exception]],
    repeat: int,
    conditions: Conditions = CONDITIONS,
) -> tuple[bool, str]:
    """Run the bench on the script's cases; return whether they passed, and what was printed."""
    cases = find(write_cases(folder, [name for name in script if name != TINY])[0])
    out = io.StringIO()
    left = {name: list(outcomes) for name, outcomes in script.items()}
    work = folder / "work"
    work.mkdir()
    with MeasuredRunner(playing(left), conditions, work) as runner:
        passed = bench(runner, cases, repeat, out).passed
    assert not any(left.values())  # each run `repeat` times, the tiny scan as well
    assert not any(work.iterdir())
    return passed, out.getvalue()


def line(text: str, case: str) -> dict[str, str]:
    (row,) = [row for row in text.splitlines() if row.startswith(f"| {case} ")]
    cells = [cell.strip() for cell in row.strip("|").split(" | ")]
    return dict(zip(COLUMNS, cells[1:], strict=True))


def test_spread_is_median_and_extremes() -> None:
    assert spread([3.0, 1.0, 10.0]).text(1) == "3.0 (1.0 to 10.0)"
    assert spread([1.0, 2.0]).text(2) == "1.50 (1.00 to 2.00)"
    assert spread([7.0]).text(0) == "7 (7 to 7)"


def test_times_are_medians_of_the_runs_with_their_spread(tmp_path: Path) -> None:
    script = {TINY: walls(3, 2, 8), "a": walls(12, 20, 10), "b": walls(6, 6, 6)}
    passed, text = measured(tmp_path, script, 3)
    assert passed
    assert "start-up 3.00 (2.00 to 8.00) s: the whole of a run on a scan of 32 voxels cubed" in text
    assert line(text, "a") == {
        "size": "24 x 20 x 10",
        "wall s": "12.0 (10.0 to 20.0)",
        "runtime s": "11.0 (9.0 to 19.0)",
        "start-up": "25%",
        "peak": "not measured",
        "area": "not measured",
        "over 4 GB": "not measured",
        "verdict": "pass: time 45 s",
    }
    assert line(text, "b")["start-up"] == "50%"
    assert text.splitlines()[0].endswith("no GPU")
    assert text.endswith("GPU memory was not measured: no GPU was used.\n")


@pytest.mark.parametrize(("slowest", "passes"), [(45.0, True), (45.01, False)])
def test_the_slowest_run_decides(tmp_path: Path, slowest: float, passes: bool) -> None:
    passed, text = measured(tmp_path, {TINY: walls(1, 1, 1), "a": walls(9, slowest, 9)}, 3)
    assert passed == passes
    assert line(text, "a")["verdict"] == ("pass: time 45 s" if passes else "FAIL: time 45 s")


def test_one_slow_scan_fails_all(tmp_path: Path) -> None:
    script = {TINY: walls(1), "a": walls(50), "b": walls(40)}
    passed, text = measured(tmp_path, script, 1)
    assert not passed
    assert line(text, "a")["verdict"] == "FAIL: time 45 s"
    assert line(text, "b")["verdict"] == "pass: time 45 s"


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (outcome(5, exit_code=3, log="no weights\n"), "nonzero_exit, exit code 3: no weights"),
        (outcome(5, exit_code=1, log="cat x | head"), r"nonzero_exit, exit code 1: cat x \| head"),
        (InfrastructureError("the engine is gone"), "infra_error, the engine is gone"),
    ],
)
def test_a_scan_that_fails_once_has_no_numbers(
    tmp_path: Path, failure: Outcome | Exception, said: str
) -> None:
    script: dict[str, Sequence[Outcome | Exception]]
    script = {TINY: walls(1, 1), "a": [outcome(5), failure], "b": walls(5, 5)}
    passed, text = measured(tmp_path, script, 2)
    assert not passed
    (row,) = [row for row in text.splitlines() if row.startswith("| a ")]
    head = next(row for row in text.splitlines() if row.startswith("| scan "))
    assert row.replace(r"\|", "").count("|") == head.count("|")
    assert row.endswith(f" | FAIL: {said} |")
    assert line(text, "b")["verdict"] == "pass: time 45 s"


def test_start_up_is_not_measured_where_a_tiny_scan_fails(tmp_path: Path) -> None:
    script = {
        TINY: [outcome(2), outcome(2, exit_code=1, log="patch larger than scan")],
        "a": walls(9, 9),
    }
    passed, text = measured(tmp_path, script, 2)
    assert passed
    said = "start-up not measured: nonzero_exit on a tiny scan, exit code 1: patch larger than scan"
    assert said in text.splitlines()
    assert line(text, "a")["start-up"] == "not measured"


class Played(MeasuredRunner):
    """Its runs have used what `vrams` says of the GPU; each takes 10 s."""

    vrams: Sequence[Vram] = ()

    def run(self, case: Case, mask: Path) -> Trial:
        if case.name == TINY:
            return Trial(State.OK, "", outcome(1), VRAM)
        left = list(self.vrams)
        self.vrams = left[1:]
        return Trial(State.OK, "", outcome(10), left[0])


@pytest.mark.parametrize(
    ("peak_mib", "verdict"),
    [(4096.0, "pass: memory 4 GB"), (4096.5, "FAIL: memory 4 GB")],
)
def test_the_largest_peak_of_gpu_memory_decides(
    tmp_path: Path, peak_mib: float, verdict: str
) -> None:
    clean = changed(VRAM, contaminated=())
    runner = Played(playing({}), CONDITIONS, tmp_path, GPU)
    runner.vrams = [
        changed(clean, peak_vram_mib=1000.0, area_mib_s=8000.0, area_above_limit_mib_s=0.0),
        changed(clean, peak_vram_mib=peak_mib, area_mib_s=10000.0, area_above_limit_mib_s=500.0),
        changed(clean, peak_vram_mib=2000.0, area_mib_s=12000.0, area_above_limit_mib_s=600.0),
    ]
    out = io.StringIO()
    passed = bench(runner, find(write_cases(tmp_path, ["a"])[0]), 3, out).passed
    assert passed == verdict.startswith("pass")
    found = line(out.getvalue(), "a")
    assert found["peak"] == f"2000 (1000 to {peak_mib:.0f})"
    assert found["area"] == "10000 (8000 to 12000)"
    assert found["over 4 GB"] == "500 MiB s (5%)"
    assert found["verdict"] == f"pass: time 45 s; {verdict}"
    assert "Stand-in GPU" in out.getvalue()
    assert "no GPU" not in out.getvalue()


def test_an_idle_gpu_is_measured_and_another_process_is_said(tmp_path: Path) -> None:
    idle = changed(VRAM, peak_vram_mib=0.0, area_mib_s=0.0, area_above_limit_mib_s=0.0)
    runner = Played(playing({}), CONDITIONS, tmp_path, GPU)
    runner.vrams = [changed(idle, contaminated=()), idle]
    out = io.StringIO()
    assert bench(runner, find(write_cases(tmp_path, ["a"])[0]), 2, out).passed
    found = line(out.getvalue(), "a")
    assert (found["peak"], found["over 4 GB"]) == ("0 (0 to 0)", "0 MiB s (0%)")
    assert found["verdict"].endswith("pass: memory 4 GB; contaminated by another process")


def test_with_labels_masks_are_scored_and_the_result_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = {TINY: walls(1, 1), "a": walls(5, 7), "b": [outcome(5), outcome(5, exit_code=3)]}
    runner = playing({name: [*outcomes] for name, outcomes in script.items()})
    monkeypatch.setattr(Submission, "runner", lambda *_: runner)
    scans, labels = write_cases(tmp_path, ["a", "b"])
    options = ["--scans", str(scans), "--labels", str(labels), "--json", str(tmp_path / "b.json")]
    words = ["bench", "--image", "x", "--gpu", "none", "--repeat", "2", *options]
    assert command_line.main(words) == 1
    said = capsys.readouterr().out
    head = next(row for row in said.splitlines() if row.startswith("| scan "))
    assert head.startswith("| scan | size | DSC | NSD | lesion F1 | wall s |")
    assert "| a | 24 x 20 x 10 | 1.000 | 1.000 | 1.000 | 6.0 (5.0 to 7.0) |" in said
    content = json.loads((tmp_path / "b.json").read_text())
    assert (content["challenge"], content["repeat"], content["gpu"]) == ("flare24", 2, None)
    a, b = content["scans"]
    assert a["wall_s"] == {"median": 6.0, "low": 5.0, "high": 7.0}
    assert (a["accuracy"]["dsc"], a["kept"], a["failure"]) == (1.0, {"time 45 s": True}, "")
    assert (b["failure"], b["accuracy"], b["wall_s"]) == (
        "nonzero_exit, exit code 3: done",
        None,
        None,
    )


@pytest.mark.parametrize(("wall_s", "code"), [(45.0, 0), (45.5, 1)])
def test_the_verdict_is_the_exit_code(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    wall_s: float,
    code: int,
) -> None:
    runner = playing({TINY: [*walls(1)], "a": [*walls(wall_s)]})
    asked: list[Limits] = []

    def scripted(self: Submission, conditions: Conditions, gpu: Gpu | None) -> Runner:
        asked.append(conditions.limits)
        return runner

    monkeypatch.setattr(Submission, "runner", scripted)
    scans, _ = write_cases(tmp_path, ["a"])
    options = ["--image", "x", "--gpu", "none", "--repeat", "1", "--memory", "512"]
    assert command_line.main(["bench", "--scans", str(scans), *options]) == code
    assert runner.closed
    assert (asked[0].memory_mib, asked[0].shm_mib) == (512, 512)
    assert line(capsys.readouterr().out, "a")["wall s"] == f"{wall_s} ({wall_s} to {wall_s})"
