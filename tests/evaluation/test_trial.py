"""One run of one case: how it is laid out, what of it is taken, and that nothing is left."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from evaluation import staging
from evaluation.cases import find
from evaluation.runners import (
    InfrastructureError,
    InputError,
    Job,
    Limits,
    Outcome,
    Runner,
    cgroup,
)
from evaluation.runners.docker import DockerRunner, connect
from evaluation.runners.process import ProcessRunner
from evaluation.staging import stage
from evaluation.states import State
from evaluation.trial import MeasuredRunner, Trial
from tests import engine
from tests.evaluation.challenges import CONDITIONS, FLARE24
from tests.evaluation.scripted import ENDED_WELL, Scripted, write_mask
from tests.submissions import (
    BEHAVIOURS,
    COPY,
    Behaviour,
    lesion,
    save,
    write_cases,
    write_submission,
)


def one_run(folder: Path, runner: Runner, limits: Limits = CONDITIONS.limits) -> Trial:
    """Run case "a"; its mask goes to folder/mask.nii.gz."""
    work = folder / "work"
    work.mkdir(exist_ok=True)
    (case,) = find(write_cases(folder / "data", ["a"])[0])
    conditions = structs.replace(CONDITIONS, limits=limits, timeout_s=20.0)
    with MeasuredRunner(runner, conditions, work) as measured:
        trial = measured.run(case, folder / "mask.nii.gz")
    assert list(work.iterdir()) == []
    assert (trial.mask is not None) == (folder / "mask.nii.gz").exists()
    return trial


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_a_case_is_laid_out_the_same_whatever_the_umask(tmp_path: Path) -> None:
    for name in ("a_0000", "a_0001"):
        save(tmp_path / "scans" / f"{name}.nii.gz", lesion())
        (tmp_path / "scans" / f"{name}.nii.gz").chmod(0o400)
    work = tmp_path / "work"
    work.mkdir()
    stage(find(tmp_path / "scans")[0], work, FLARE24.contract)
    found = {
        str(path.relative_to(tmp_path)): oct(stat.S_IMODE(path.stat().st_mode))
        for path in work.rglob("*")
    }
    assert found == {
        "work/inputs": "0o755",
        "work/inputs/a_0000.nii.gz": "0o644",
        "work/inputs/a_0001.nii.gz": "0o644",
        "work/outputs": "0o777",
    }


@pytest.mark.parametrize("linked", [False, True])
def test_what_a_submission_does_to_its_scan_stays_with_it(tmp_path: Path, linked: bool) -> None:
    save(tmp_path / "original.nii.gz", lesion())
    scan = tmp_path / "scans" / "a_0000.nii.gz"
    scan.parent.mkdir()
    if linked:
        scan.symlink_to(tmp_path / "original.nii.gz")
    else:
        (tmp_path / "original.nii.gz").rename(scan)
    before = scan.read_bytes()
    work = tmp_path / "work"
    work.mkdir()
    stage(find(scan.parent)[0], work, FLARE24.contract)
    copy = work / "inputs" / scan.name
    assert copy.read_bytes() == before
    assert stat.S_ISREG(copy.lstat().st_mode)
    copy.write_bytes(b"no scan")
    assert scan.read_bytes() == before


@pytest.mark.parametrize("kind", ["link", "hanging", "pipe", "folder"])
def test_a_mask_that_is_no_file_is_not_taken(tmp_path: Path, kind: str) -> None:
    save(tmp_path / "another.nii.gz", lesion())

    def act(job: Job) -> None:
        mask = job.work / "outputs" / "a.nii.gz"
        match kind:
            case "link":
                mask.symlink_to(tmp_path / "another.nii.gz")
            case "hanging":
                mask.symlink_to("nothing")
            case "pipe":
                os.mkfifo(mask)
            case "folder":
                mask.mkdir()

    trial = one_run(tmp_path, Scripted(act))
    assert trial.state is State.NO_OUTPUT
    assert trial.message == "a.nii.gz in outputs/ is not a regular file"
    assert (tmp_path / "another.nii.gz").exists()


@pytest.mark.parametrize(
    ("others", "says"),
    [
        ("", ""),
        ("x", "not asked for: x"),
        ("zyx", "not asked for: x, y, z"),
        ("xyzvw", "not asked for: v, w, x and 2 more"),
    ],
)
def test_of_what_else_was_written_three_are_named(tmp_path: Path, others: str, says: str) -> None:
    def act(job: Job) -> None:
        for name in others:
            (job.work / "outputs" / name).touch()

    nothing = one_run(tmp_path, Scripted(act))
    assert nothing.state is State.NO_OUTPUT
    assert nothing.message == "; ".join(filter(None, ["no a.nii.gz in outputs/", says]))

    def act_well(job: Job) -> None:
        act(job)
        write_mask(job)

    trial = one_run(tmp_path, Scripted(act_well))
    assert (trial.state, trial.message) == (State.OK, says)


def test_a_mask_of_an_earlier_attempt_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    assert one_run(tmp_path, Scripted(write_mask)).mask == tmp_path / "mask.nii.gz"
    assert one_run(tmp_path, Scripted(lambda _: None)).state is State.NO_OUTPUT


def test_a_mask_does_not_make_a_failed_run_good(tmp_path: Path) -> None:
    def act(job: Job) -> Outcome:
        write_mask(job)
        return replace(ENDED_WELL, exit_code=3)

    trial = one_run(tmp_path, Scripted(act))
    assert (trial.state, trial.message) == (State.NONZERO_EXIT, "exit code 3: done")
    assert trial.mask is None


@pytest.mark.parametrize("error", [KeyboardInterrupt(), InputError("no such image")])
def test_nothing_is_left_of_a_run_that_is_given_up(tmp_path: Path, error: BaseException) -> None:
    """By the user, or because there is no such submission, which is for the user to mend."""

    def act(job: Job) -> None:
        write_mask(job)
        raise error

    with pytest.raises(type(error)):
        one_run(tmp_path, Scripted(act))
    assert list((tmp_path / "work").iterdir()) == []


def test_a_machine_that_fails_has_measured_nothing(tmp_path: Path) -> None:
    def act(job: Job) -> None:
        write_mask(job)
        raise InfrastructureError("the engine is gone")

    trial = one_run(tmp_path, Scripted(act))
    assert (trial.state, trial.message) == (State.INFRA_ERROR, "the engine is gone")
    assert (trial.outcome, trial.vram, trial.mask) == (None, None, None)


def test_folders_nested_deeper_than_python_recurses_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(job: Job) -> None:
        monkeypatch.chdir(job.work / "outputs")
        for _ in range(1500):
            Path("d").mkdir()
            os.chdir("d")
        monkeypatch.undo()

    try:
        assert one_run(tmp_path, Scripted(act)).message == "more than 1000 files in outputs/"
    finally:
        subprocess.run(["rm", "-rf", "--", tmp_path / "work"], check=True)


LIMITED = structs.replace(Limits(), memory_mib=128, shm_mib=32, tmp_mib=16, output_mib=2)
COUNT = 'i=0; while [ $i -lt 1100 ]; do {}; i=$((i+1)); done; echo "$i"'
WRITERS = {
    "much": Behaviour("", f"{COPY}; head -c 3M /dev/zero > outputs/x; sleep 60"),
    "many": Behaviour("", f"{COPY}; {COUNT.format(': > outputs/$i')}; sleep 60"),
    "deep": Behaviour("", f"{COPY}; cd outputs; {COUNT.format('mkdir d && cd d')}; sleep 60"),
    "greedy": Behaviour("", f"tail /dev/zero; {COPY}"),
    # Neither of these two shows in a look at outputs/.
    "nameless": Behaviour(
        "", f"{COPY}; exec 3> outputs/x; rm outputs/x; head -c 3M /dev/zero >&3; sleep 60"
    ),
    "nested": Behaviour(
        "",
        f"{COPY}; cd outputs; d=$(printf %0250d 0); i=0; while [ $i -lt 20 ]; do mkdir $d && cd $d;"
        " i=$((i+1)); done; head -c 3M /dev/zero > x; sleep 60",
    ),
    # Nothing looks while these are made.
    "late": Behaviour("", f"{COPY}; truncate -s 1T outputs/x"),
    "late_mask": Behaviour("", 'truncate -s 1T "$mask"'),
    "less": Behaviour("", f"{COPY}; head -c 1M /dev/zero > outputs/x; sleep 0.5"),
}
STOPPED = {
    "much": "stopped: more than 2 MiB in outputs/",
    "many": "stopped: more than 1000 files in outputs/",
    "deep": "stopped: more than 1000 files in outputs/",
    "nameless": "stopped: more than 2 MiB in files that it has removed and not closed",
    "nested": "stopped: folders nested deeper than a path is long in outputs/",
}
TRICKS = {
    "linked": Behaviour(
        "", 'cp "$made" linked.nii.gz; rmdir outputs; ln -s . outputs', "by a link"
    ),
    "gone": Behaviour("", "rmdir outputs", "outputs/ cannot be listed any more (No such file"),
    "file": Behaviour("", "rmdir outputs; touch outputs", "cannot be listed any more (Not a dir"),
}


RUNNERS = [pytest.param("docker", marks=pytest.mark.engine), "process"]


@pytest.fixture(scope="module", params=RUNNERS)
def writer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, engine.Image | None]]:
    """The folder of a submission that acts as WRITERS say, and its image where there is one."""
    source = tmp_path_factory.mktemp("writer") / "submission"
    good = BEHAVIOURS["good"].make
    write_submission(source, {name: replace(one, make=good) for name, one in WRITERS.items()})
    image = engine.build_image(source) if request.param == "docker" else None
    yield source, image
    if image is not None:
        engine.remove_image(image)


def run_named(
    folder: Path, name: str, source: Path, image: engine.Image | None
) -> tuple[Trial, Path]:
    """Run a case of this name; return the trial and where its mask would be."""
    work, mask = folder / "work", folder / "mask.nii.gz"
    work.mkdir()
    runner: Runner = (
        ProcessRunner("sh predict.sh", source, LIMITED, None, dict(os.environ))
        if image is None
        else DockerRunner(connect(), image.name, LIMITED, None, FLARE24.contract)
    )
    (case,) = find(write_cases(folder / "data", [name])[0])
    try:
        with MeasuredRunner(runner, structs.replace(CONDITIONS, limits=LIMITED), work) as measured:
            trial = measured.run(case, mask)
        assert list(work.iterdir()) == []
    finally:
        runner.close()
        # Nested too deep for pytest to clear away, if the harness has not done it.
        subprocess.run(["rm", "-rf", "--", work], check=True)
    return trial, mask


@pytest.mark.parametrize("name", STOPPED)
def test_who_writes_too_much_is_stopped(
    writer: tuple[Path, engine.Image | None], tmp_path: Path, name: str
) -> None:
    trial, _ = run_named(tmp_path, name, *writer)
    assert (trial.state, trial.message) == (State.BAD_OUTPUT, STOPPED[name])
    assert trial.outcome is not None
    assert trial.outcome.exit_code is None
    assert trial.outcome.runtime_s < 20
    if image := writer[1]:
        assert not engine.docker("ps", "-aq", "--filter", f"ancestor={image.id}").stdout


@pytest.mark.parametrize("name", ["late", "late_mask"])
def test_what_is_made_last_is_looked_at_as_well(
    writer: tuple[Path, engine.Image | None],
    tmp_path: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("evaluation.trial.INTERVAL_S", 1000.0)
    result, _ = run_named(tmp_path, name, *writer)
    assert result.state is State.BAD_OUTPUT
    assert result.message.endswith("more than 2 MiB in outputs/")
    assert list(tmp_path.glob("*mask.nii*")) == []


def test_a_file_that_no_mask_is_as_large_as_is_not_copied(tmp_path: Path) -> None:
    def act(job: Job) -> None:
        with (job.work / "outputs" / "a.nii.gz").open("wb") as mask:
            mask.truncate(24 * 20 * 10 * 16 + 2**20 + 1)

    found = one_run(tmp_path, Scripted(act))
    assert found.state is State.BAD_OUTPUT
    assert found.message == "a.nii.gz in outputs/ is larger than any mask of its scan"
    assert list(tmp_path.glob("*mask.nii*")) == []
    assert one_run(tmp_path, Scripted(write_mask)).state is State.OK


def test_who_writes_less_is_not(writer: tuple[Path, engine.Image | None], tmp_path: Path) -> None:
    trial, mask = run_named(tmp_path, "less", *writer)
    assert (trial.state, trial.message) == (State.OK, "not asked for: x")
    assert mask.is_file()


def test_a_child_that_was_killed_for_memory_is_told_of_though_all_ended_well(
    writer: tuple[Path, engine.Image | None], tmp_path: Path
) -> None:
    trial, _ = run_named(tmp_path, "greedy", *writer)
    said = "one of its processes was killed for memory"
    assert (trial.state, trial.message) == (State.OK, said)


def test_what_the_harness_itself_holds_is_not_the_submissions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a control group: the kernel's peak of a process begins with that of its parent."""
    monkeypatch.setattr(cgroup, "create", lambda _: None)
    ballast = b"x" * 2**28
    source = write_submission(tmp_path / "submission", {"a": Behaviour("", "sleep 0.5")})
    trial, _ = run_named(tmp_path, "a", source, None)
    assert len(ballast) == 2**28
    assert trial.outcome is not None
    assert trial.outcome.peak_ram_mib is not None
    assert 0 < trial.outcome.peak_ram_mib < 64


@pytest.mark.parametrize("name", TRICKS)
def test_a_process_that_takes_its_outputs_away_has_written_none(tmp_path: Path, name: str) -> None:
    good = BEHAVIOURS["good"].make
    tricks = {name: replace(one, make=good) for name, one in TRICKS.items()}
    source = write_submission(tmp_path / "submission", tricks)
    trial, mask = run_named(tmp_path, name, source, None)
    assert trial.state is State.NO_OUTPUT
    assert TRICKS[name].says in trial.message
    assert not mask.exists()


def test_a_file_name_that_is_no_text_is_said_in_text(tmp_path: Path) -> None:
    def act(job: Job) -> None:
        write_mask(job)
        (job.work / "outputs" / "a\udcff\x1b[31m\nred").touch()

    trial = one_run(tmp_path, Scripted(act))
    assert trial.state is State.OK
    assert trial.message.isprintable()
    trial.message.encode("utf-8")


def test_a_mask_is_copied_without_the_rights_that_it_came_with(tmp_path: Path) -> None:
    def act(job: Job) -> None:
        write_mask(job)
        (job.work / "outputs" / f"{job.name}.nii.gz").chmod(0o4755)

    mask = one_run(tmp_path, Scripted(act)).mask
    assert mask is not None
    assert mask.stat().st_mode & 0o7111 == 0


@pytest.mark.parametrize("free_mib", [1, 4 * 1024])
def test_room_for_all_that_may_be_written_is_asked_for_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_mib: int
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=free_mib * 2**20)
    monkeypatch.setattr("evaluation.disk.shutil.disk_usage", lambda _: usage)
    runner = Scripted(write_mask)
    found = one_run(tmp_path, runner)
    assert (found.state, runner.jobs) == (State.INFRA_ERROR, [])
    assert f"{free_mib} MiB are free, less than 4608; make room" in found.message


def test_a_disk_that_is_full_when_the_mask_is_taken_is_not_the_submissions_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(staging, "replacing", full)
    found = one_run(tmp_path, Scripted(write_mask))
    assert found.state is State.INFRA_ERROR
    assert found.message.endswith("mask.nii.gz: cannot be written (No space left on device)")
