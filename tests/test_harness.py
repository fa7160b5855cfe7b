"""The whole harness from its command line: real containers, and the same as processes."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nibabel
import pytest

from evaluation import challenges
from evaluation.runners.docker import CASE_LABEL, OWNER_LABEL
from tests import engine
from tests.submissions import BEHAVIOURS, Behaviour, write_cases, write_submission

pytestmark = pytest.mark.slow

MEMORY_MIB = 128
TIMEOUT_S = 4
RUNNERS = [*engine.ENGINES, "process"]
SEED = 20241122


def command(folder: Path, submission: list[str], *options: object) -> list[str]:
    return [
        *(sys.executable, "-m", "evaluation", "run", *submission),
        *("--cases", str(folder / "scans"), "--labels", str(folder / "labels")),
        *("--output", str(folder / "results"), "--gpu", "none"),
        *map(str, options),
    ]


def environment(folder: Path) -> dict[str, str]:
    """What a harness sees whose folders are those of one test alone."""
    return {**os.environ, "PYTHONPATH": str(engine.ROOT), "TMPDIR": str(folder)}


def evaluate(
    folder: Path, submission: list[str], *options: object
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(folder, submission, *options),
        cwd=folder / "submission",
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "results" / "results.csv").open() as file:
        found = list(csv.DictReader(file))
    assert len({row["case"] for row in found}) == len(found)
    return {row["case"]: row for row in found}


def records(folder: Path) -> dict[str, dict[str, object]]:
    found = (folder / "results" / "cases").glob("*.json")
    return {path.stem: json.loads(path.read_text()) for path in found}


def containers() -> list[str]:
    return engine.docker("ps", "-aq", "--filter", f"label={OWNER_LABEL}").stdout.split()


@contextlib.contextmanager
def built(runner: str, source: Path) -> Iterator[str]:
    """Use an engine; the name of the image that it has built. A process needs none."""
    if runner == "process":
        yield runner
        return
    with engine.in_use(runner):
        image = engine.build_image(source)
        try:
            yield image.name
        finally:
            engine.remove_image(image)


@pytest.fixture(scope="module", params=RUNNERS)
def submission(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """The runner and a folder with a submission that shows every behaviour."""
    folder = tmp_path_factory.mktemp("harness")
    write_submission(folder / "submission", BEHAVIOURS)
    with built(request.param, folder / "submission") as name:
        yield name, folder


def option(name: str) -> list[str]:
    return ["--command", "sh predict.sh"] if name == "process" else ["--image", name]


def test_every_way_to_fail_has_its_state_and_is_scored(submission: tuple[str, Path]) -> None:
    name, folder = submission
    write_cases(folder, list(BEHAVIOURS))
    done = evaluate(folder, option(name), "--timeout", TIMEOUT_S, "--memory", MEMORY_MIB)
    assert done.returncode == 1, done.stderr
    found = rows(folder)
    assert found.keys() == BEHAVIOURS.keys()
    for case, behaviour in BEHAVIOURS.items():
        row = found[case]
        assert (case, row["status"]) == (case, behaviour.state)
        assert behaviour.says in row["message"]
        assert float(row["dsc"]) == float(row["nsd"]) == (behaviour.state == "ok")
        assert row["peak_vram_mib"] == row["area_mib_s"] == row["flare_auc_gpu_time"] == ""
        assert 0 <= float(row["runtime_s"]) < float(row["wall_s"])
    assert TIMEOUT_S <= float(found["sleep"]["runtime_s"]) < TIMEOUT_S + 1
    if name == "process" or not engine.drops_limits():
        assert float(found["hog"]["peak_ram_mib"]) == pytest.approx(MEMORY_MIB, rel=0.05)
    assert records(folder)["exit3"]["log"] == ["no weights"]
    assert "not measured" in (folder / "results" / "tables.md").read_text()
    overlays = sorted(path.name for path in (folder / "results" / "overlays").iterdir())
    assert overlays == [
        f"{case}-{which}.png"
        for case in sorted(case for case, one in BEHAVIOURS.items() if one.state == "ok")
        for which in ("largest", "worst")
    ]
    if name != "process":
        assert containers() == []


def test_results_are_not_overwritten_or_mixed(submission: tuple[str, Path]) -> None:
    name, folder = submission
    before = records(folder)
    again = evaluate(folder, option(name), "--timeout", TIMEOUT_S, "--memory", MEMORY_MIB)
    assert again.returncode == 1
    assert again.stderr.count("\n") == 1
    assert "--resume" in again.stderr
    other = evaluate(folder, option(name), "--timeout", TIMEOUT_S, "--resume")
    assert other.returncode == 1
    assert "memory_mib was 128, is 28672" in other.stderr
    same = evaluate(
        folder, option(name), "--timeout", TIMEOUT_S, "--memory", MEMORY_MIB, "--resume"
    )
    assert same.returncode == 1, same.stderr
    assert "from an earlier run" in same.stdout
    assert records(folder) == before


@pytest.mark.parametrize("runner", engine.ENGINES)
def test_grand_challenges_contract_is_kept(tmp_path: Path, runner: str) -> None:
    """Entry point without arguments, /input read-only, half of the memory shared, not as root.

    And as on the platform, nothing inside says which case it is.
    """
    write_cases(tmp_path, ["patient_17"])
    source = tmp_path / "submission"
    source.mkdir()
    (source / "run.sh").write_text(
        'echo "$#" arguments as "$(id -u)"; touch /input/x || df -m /dev/shm | tail -n 1\n'
        "cat /proc/self/mountinfo; env; ls -R /input; cat /input/inputs.json\n"
        "mkdir -p /output/images/nodules; cp /input/images/ct/*.mha /output/images/nodules/\n"
    )
    dockerfile = (
        "ARG BASE_IMAGE=debian:bookworm-slim\nFROM ${BASE_IMAGE}\nCOPY run.sh /opt/\n"
        'ENTRYPOINT ["sh", "/opt/run.sh"]\n'
    )
    text = (challenges.FOLDER / "autopet.toml").read_text().replace('["ct", "pet"]', '["ct"]')
    (tmp_path / "mine.toml").write_text(text.replace("tumor-lesion-segmentation", "nodules"))
    options = ("--challenge", tmp_path / "mine.toml", "--memory", 128)
    (source / "Dockerfile").write_text(dockerfile + "USER 1000\n")
    with built(runner, source) as name:
        done = evaluate(tmp_path, option(name), *options)
    found = records(tmp_path)["patient_17"]
    # The mask is the scan itself: what it holds is no label, but it lies on the scan's grid.
    assert (found["state"], done.returncode) == ("bad_output", 1), done.stderr
    assert "patient_17.nii.gz: holds labels from" in str(found["message"])
    assert (tmp_path / "results" / "predictions" / "patient_17.nii.gz").exists()
    log = (tmp_path / "results" / "logs" / "patient_17.log").read_text()
    assert "0 arguments as 1000" in log
    assert "Read-only file system" in log
    assert f" {MEMORY_MIB // 2} " in log
    assert " /input ro" in log
    assert "patient_17" not in log
    assert str(tmp_path / "results") not in log
    (source / "Dockerfile").write_text(dockerfile)
    with built(runner, source) as name:
        refused = evaluate(tmp_path, option(name), *options, "--resume")
    assert refused.stderr.count("\n") == 1
    assert "runs as root" in refused.stderr


@pytest.mark.parametrize("runner", [*engine.ENGINES[:1], "process"])
def test_an_anonymised_case_is_known_by_its_name_to_nobody_inside(
    tmp_path: Path, runner: str
) -> None:
    """Not by a file or folder, a variable, a mount, or what a scan says of itself."""
    good = BEHAVIOURS["good"]
    look = "env; pwd -P; ls -R inputs/; cat /proc/self/mountinfo; gzip -cd inputs/*; cat inputs/*"
    looking = Behaviour("ok", f"({look}) | tr '\\0' ' '; {good.script}", make=good.make)
    source = write_submission(tmp_path / "submission", {"case": looking})
    names = ["patient_17", "patient_4", "patient_5"]
    scans, _ = write_cases(tmp_path, names)
    for path in scans.iterdir():
        image = nibabel.Nifti1Image.from_filename(path)
        image.header["descrip"] = path.name
        nibabel.save(image, path)
    with built(runner, source) as name:
        done = evaluate(tmp_path, option(name), "--anonymise")
        named = evaluate(tmp_path, option(name), "--resume")
    assert done.returncode == 0, done.stdout + done.stderr
    found = records(tmp_path)
    assert {case: one["alias"] for case, one in found.items()} == {
        case: f"case_{i:04}" for i, case in enumerate(names, start=1)
    }
    assert [row["dsc"] for row in rows(tmp_path).values()] == ["1.0"] * 3
    masks = sorted(path.name for path in (tmp_path / "results" / "predictions").iterdir())
    assert masks == [f"{case}.nii.gz" for case in names]
    for case in names:
        log = (tmp_path / "results" / "logs" / f"{case}.log").read_text()
        assert f"{found[case]['alias']}_0000.nii.gz" in log
        assert "n+1" in log  # its whole header
        assert "patient" not in log
    assert "anonymised was True, is False" in named.stderr


@pytest.mark.parametrize("runner", engine.ENGINES[:1])
def test_a_container_of_a_running_harness_is_left_alone(tmp_path: Path, runner: str) -> None:
    """Reaping must not touch what another harness, still alive, is measuring."""
    good = BEHAVIOURS["good"]
    held = "while [ ! -e inputs/go ]; do sleep 0.1; done"
    slow = Behaviour("ok", f"{held}; {good.script}", make=good.make)
    source = write_submission(tmp_path / "submission", {"slow": slow, "good": good})
    write_cases(tmp_path, ["slow"])
    with built(runner, source) as name:
        process = subprocess.Popen(
            command(tmp_path, option(name)),
            cwd=engine.ROOT,
            env=environment(tmp_path),
            stdout=subprocess.DEVNULL,
        )
        for _ in range(200):
            if containers():
                break
            time.sleep(0.05)
        other = tmp_path / "other"
        (other / "submission").mkdir(parents=True)
        write_cases(other, ["good"])
        assert evaluate(other, option(name)).returncode == 0
        assert process.poll() is None
        busy = evaluate(tmp_path, option(name), "--resume")
        assert "another evaluation writes there" in busy.stderr
        (inputs,) = tmp_path.glob("flare-*/*/*/inputs")
        (inputs / "go").touch()
        assert process.wait(60) == 0
        assert rows(tmp_path)["slow"]["status"] == "ok"
        labels = '{{.Label "' + CASE_LABEL + '"}}'
        assert engine.docker("ps", "-a", "--format", labels).stdout.strip() == ""
