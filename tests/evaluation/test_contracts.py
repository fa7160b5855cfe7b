"""Contracts: how a case is laid out under each, what is taken as its mask, what is refused."""

from __future__ import annotations

import json
import os
import shutil
import stat
import uuid
from collections.abc import Callable
from pathlib import Path

import msgspec
import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from msgspec.structs import replace

from evaluation import challenges
from evaluation.apart import Apart, CallFailed
from evaluation.cases import Case, anonymised, find
from evaluation.contracts import Contract
from evaluation.errors import EvaluationError
from evaluation.runners import Job
from evaluation.scoring.assess import assess
from evaluation.staging import collect, stage
from evaluation.states import State
from evaluation.trial import MeasuredRunner
from tests.evaluation.challenges import CONDITIONS, FLARE24, GRAND_CHALLENGE, ONE_SOCKET
from tests.evaluation.scripted import Scripted
from tests.submissions import lesion, save, write_cases

FLARE = FLARE24.contract
TWO_SOCKETS = challenges.load("autopet").contract
MASKS = "images/tumor-lesion-segmentation"


def one_case(folder: Path, name: str = "a") -> Case:
    scans, labels = write_cases(folder, [name])
    (case,) = find(scans, labels)
    return case


def staged(case: Case, folder: Path, contract: Contract = ONE_SOCKET) -> Path:
    work = folder / "work"
    work.mkdir()
    stage(case, work, contract)
    return work


def answer(work: Path, name: str = "output.mha", socket: str = MASKS) -> Path:
    """Write the reference as an algorithm would: as an image on the grid of its input."""
    (scan,) = (work / "inputs" / "images" / "ct").iterdir()
    image = sitk.GetImageFromArray(lesion().T)
    image.CopyInformation(sitk.ReadImage(str(scan)))
    path = work / "outputs" / socket / name
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path), useCompression=True)
    return path


def test_grand_challenge_gets_a_folder_for_each_socket(tmp_path: Path) -> None:
    for channel in ("a_0000", "a_0001"):
        save(tmp_path / "scans" / f"{channel}.nii.gz", lesion())
    (case,) = find(tmp_path / "scans")
    before = os.umask(0o077)
    try:
        work = staged(case, tmp_path, TWO_SOCKETS)
    finally:
        os.umask(before)
    sockets = [work / "inputs" / "images" / slug for slug in ("ct", "pet")]
    names = []
    for socket in sockets:
        (scan,) = socket.iterdir()
        assert uuid.UUID(scan.stem)
        assert scan.suffix == ".mha"
        names.append(scan.name)
    told = json.loads((work / "inputs" / "inputs.json").read_text())
    assert [one["socket"]["slug"] for one in told] == ["ct", "pet"]
    assert [one["socket"]["relative_path"] for one in told] == ["images/ct", "images/pet"]
    assert [one["image"]["name"] for one in told] == names
    modes = {path.is_dir(): stat.S_IMODE(path.stat().st_mode) for path in work.rglob("inputs/**/*")}
    assert modes == {True: 0o755, False: 0o644}
    assert stat.S_IMODE((work / "outputs").stat().st_mode) == 0o777
    assert list((work / "outputs").iterdir()) == []


def test_a_mask_comes_back_with_the_scans_own_header(tmp_path: Path) -> None:
    """Scored like one that FLARE's contract brings, even where pixdim and sform disagree."""
    case = one_case(tmp_path)
    scan = nibabel.Nifti1Image(np.asarray(lesion(), np.int16), np.diag([-0.8, -0.8, 2.5, 1.0]))
    scan.header["pixdim"][1:4] = (0.81, 0.81, 2.6)
    nibabel.save(scan, case.scans[0])
    (case,) = find(case.scans[0].parent, case.reference and case.reference.parent)
    assert case.grid.spacing_zyx != pytest.approx((2.5, 0.8, 0.8), abs=1e-3)
    work = staged(case, tmp_path)
    answer(work)
    mask = tmp_path / "mask.nii.gz"
    assert collect(case, work / "outputs", mask, ONE_SOCKET) == (State.OK, "")
    assert case.reference is not None
    state, message, accuracy = assess(mask, case.reference, case.grid, FLARE24.scoring)
    assert (state, message) == (State.OK, "")
    assert accuracy.dsc == accuracy.nsd == 1.0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("labels", "mask.nii.gz", "scans", "work"),
    ]


@pytest.mark.parametrize(
    "affine",
    [
        np.diag([0.8, 0.8, 2.5, 1.0]),
        np.array([[0, 0.7, 0, 9], [-0.6, 0, 0, -8], [0, 0, 3, 7], [0, 0, 0, 1.0]]),
    ],
)
def test_a_mask_on_the_scans_grid_is_found_to_be_on_it(
    tmp_path: Path, affine: np.ndarray[tuple[int, int], np.dtype[np.float64]]
) -> None:
    save(tmp_path / "scans" / "a_0000.nii.gz", lesion().astype(np.int16), affine)
    (case,) = find(tmp_path / "scans")
    work = staged(case, tmp_path)
    answer(work)
    mask = tmp_path / "mask.nii.gz"
    assert collect(case, work / "outputs", mask, ONE_SOCKET) == (State.OK, "")
    np.testing.assert_array_equal(np.asarray(nibabel.load(mask).dataobj), lesion())  # type: ignore[attr-defined]
    assert nibabel.load(mask).get_data_dtype() == np.uint8  # type: ignore[attr-defined]


def nothing(outputs: Path) -> None:
    pass


def linked_folder(outputs: Path) -> None:
    shutil.move(outputs / "images", outputs.parent / "elsewhere")
    (outputs / "images").symlink_to(outputs.parent / "elsewhere")


def linked_file(outputs: Path) -> None:
    shutil.move(outputs / MASKS / "output.mha", outputs.parent / "elsewhere.mha")
    (outputs / MASKS / "output.mha").symlink_to(outputs.parent / "elsewhere.mha")


def pipe(outputs: Path) -> None:
    (outputs / MASKS / "output.mha").unlink()
    os.mkfifo(outputs / MASKS / "output.mha")


def file_for_folder(outputs: Path) -> None:
    shutil.rmtree(outputs / MASKS)
    (outputs / MASKS).touch()


def moved(outputs: Path) -> None:
    shutil.move(outputs / MASKS, outputs / "images" / "another-socket")


def renamed(outputs: Path) -> None:
    (outputs / MASKS / "output.mha").rename(outputs / MASKS / "output.tif")


def doubled(outputs: Path) -> None:
    shutil.copyfile(outputs / MASKS / "output.mha", outputs / MASKS / "again.mha")


def referring(outputs: Path) -> None:
    path = outputs / MASKS / "output.mha"
    path.write_bytes(path.read_bytes().replace(b"= LOCAL", b"= /labels/a.raw"))


def bent(outputs: Path) -> None:
    image = sitk.ReadImage(str(outputs / MASKS / "output.mha"))
    image.SetSpacing((1.0, 1.0, 1.0))
    sitk.WriteImage(image, str(outputs / MASKS / "output.mha"))


def huge(outputs: Path) -> None:
    path = outputs / MASKS / "output.mha"
    path.write_bytes(
        path.read_bytes().replace(b"DimSize = 24 20 10", b"DimSize = 99999 99999 99999")
    )


def whispering(outputs: Path) -> None:
    path = outputs / MASKS / "output.mha"
    path.write_bytes(path.read_bytes().replace(b"MET_UCHAR", b"\x1b[31m"))


@pytest.mark.parametrize(
    ("spoil", "state", "says"),
    [
        (nothing, State.OK, ""),
        (linked_folder, State.NO_OUTPUT, "outputs/images/ was replaced by a link"),
        (linked_file, State.NO_OUTPUT, f"output.mha in outputs/{MASKS}/ is not a regular file"),
        (pipe, State.NO_OUTPUT, f"output.mha in outputs/{MASKS}/ is not a regular file"),
        (file_for_folder, State.NO_OUTPUT, f"outputs/{MASKS}/ cannot be listed any more"),
        (moved, State.NO_OUTPUT, f"no *.mha in outputs/{MASKS}/; not asked for: another-socket"),
        (renamed, State.NO_OUTPUT, f"no *.mha in outputs/{MASKS}/; not asked for: output.tif"),
        (doubled, State.NO_OUTPUT, f"2 files are *.mha in outputs/{MASKS}/, expected one"),
        (referring, State.BAD_OUTPUT, "output.mha: its ElementDataFile is /labels/a.raw"),
        (bent, State.BAD_OUTPUT, "output.mha: not on the scan's grid: its spacing is"),
        (huge, State.BAD_OUTPUT, "output.mha: 99999 x 99999 x 99999 voxels"),
        (whispering, State.BAD_OUTPUT, "output.mha: holds \N{REPLACEMENT CHARACTER}[31m voxels"),
    ],
)
def test_what_an_algorithm_may_leave(
    tmp_path: Path, spoil: Callable[[Path], None], state: State, says: str
) -> None:
    case = one_case(tmp_path)

    def act(job: Job) -> None:
        answer(job.work)
        spoil(job.work / "outputs")

    (tmp_path / "rig").mkdir()
    mask = tmp_path / "predictions" / "a.nii.gz"
    with MeasuredRunner(Scripted(act), GRAND_CHALLENGE, tmp_path / "rig") as runner:
        trial = runner.run(case, mask)
    assert trial.state is state
    assert trial.message.startswith(says)
    assert (trial.message == "") == (state is State.OK)
    assert trial.mask == (mask if state is State.OK else None)
    assert [path.name for path in (tmp_path / "predictions").glob("*")] == (
        ["a.nii.gz"] if state is State.OK else []
    )
    assert list((tmp_path / "rig").iterdir()) == []


def test_a_kill_while_a_mask_is_converted_leaves_nothing_among_the_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = one_case(tmp_path)
    work = staged(case, tmp_path, GRAND_CHALLENGE.challenge.contract)
    answer(work)
    mask = tmp_path / "predictions" / "a.nii.gz"
    mask.parent.mkdir()
    there: list[str] = []

    def killed(*_: object) -> None:
        there.extend(path.name for path in mask.parent.iterdir())
        raise CallFailed("as if the machine had ended")

    monkeypatch.setattr(Apart, "call", killed)
    collect(case, work / "outputs", mask, GRAND_CHALLENGE.challenge.contract)
    assert there == []


@pytest.mark.parametrize("name", ["a[bc]", "a{case}", "a*"])
def test_a_name_is_no_pattern(tmp_path: Path, name: str) -> None:
    case = one_case(tmp_path, name)
    work = staged(case, tmp_path, FLARE)
    (work / "outputs" / "ab.nii.gz").touch()
    mask = tmp_path / "mask.nii.gz"
    said = f"no {name}.nii.gz in outputs/; not asked for: ab.nii.gz"
    assert collect(case, work / "outputs", mask, FLARE) == (State.NO_OUTPUT, said)
    save(work / "outputs" / f"{name}.nii.gz", lesion())
    assert collect(case, work / "outputs", mask, FLARE) == (State.OK, "not asked for: ab.nii.gz")


def test_an_alias_has_all_channels_and_names_the_mask(tmp_path: Path) -> None:
    """Even of a scan without a channel in its name: case_0001 would be channel 1 of "case"."""
    for name in ("a_0000", "a_0001", "b"):
        save(tmp_path / "scans" / f"{name}.nii.gz", lesion())
    cases = anonymised(find(tmp_path / "scans"))
    assert [(case.name, case.alias) for case in cases] == [("a", "case_0001"), ("b", "case_0002")]
    given = []

    def act(job: Job) -> None:
        given.append(sorted(path.name for path in (job.work / "inputs").iterdir()))
        if len(given) < 3:
            save(job.work / "outputs" / f"case_000{len(given)}.nii.gz", lesion())
        save(job.work / "outputs" / "b.nii.gz", lesion())

    with MeasuredRunner(Scripted(act), CONDITIONS, tmp_path) as runner:
        trials = [runner.run(case, tmp_path / f"{case.name}.nii.gz") for case in (*cases, cases[1])]
    assert given == [
        ["case_0001_0000.nii.gz", "case_0001_0001.nii.gz"],
        *[["case_0002_0000.nii.gz"]] * 2,
    ]
    assert [trial.state for trial in trials] == [State.OK, State.OK, State.NO_OUTPUT]
    assert trials[2].message == "no case_0002.nii.gz in outputs/; not asked for: b.nii.gz"


def test_channels_without_a_socket_are_refused_before_anything_runs(tmp_path: Path) -> None:
    for channel in ("a_0000", "a_0001"):
        save(tmp_path / f"{channel}.nii.gz", lesion())
    cases = find(tmp_path)
    FLARE.check_cases(cases)
    TWO_SOCKETS.check_cases(cases)
    with pytest.raises(EvaluationError, match=r"case a has 2 channel.*1 socket.*images/ct"):
        ONE_SOCKET.check_cases(cases)


@pytest.mark.parametrize("slug", ["", "CT", "a/b", "..", "a b", "-a"])
def test_what_is_no_slug_is_refused(slug: str) -> None:
    for change in ({"input_sockets": [slug]}, {"output_socket": slug}):
        with pytest.raises(msgspec.ValidationError, match=r"matching regex"):
            msgspec.convert(msgspec.to_builtins(ONE_SOCKET) | change, Contract)


@pytest.mark.parametrize("change", [{"input_sockets": ()}, {"output_socket": None}])
def test_sockets_go_both_ways(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="need each other"):
        replace(ONE_SOCKET, **change)


@pytest.mark.parametrize("user", ["", "root", "0", "0:0", "root:users", None])
def test_grand_challenge_refuses_root(user: str | None) -> None:
    with pytest.raises(EvaluationError, match=r"team:latest: runs as root.*add USER"):
        ONE_SOCKET.check_image("team:latest", {"User": user, "Cmd": ["sh"]})
    FLARE.check_image("team:latest", {"User": user})


def test_grand_challenge_needs_an_entry_point() -> None:
    ONE_SOCKET.check_image("team", {"User": "1000", "Entrypoint": ["run"], "Cmd": None})
    ONE_SOCKET.check_image("team", {"User": "1000", "Entrypoint": None, "Cmd": ["run"]})
    with pytest.raises(EvaluationError, match="team: has no entry point"):
        ONE_SOCKET.check_image("team", {"User": "1000", "Entrypoint": None, "Cmd": None})
    FLARE.check_image("team", {"User": "1000"})
