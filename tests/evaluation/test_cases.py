from pathlib import Path

import nibabel
import numpy as np
import pytest

from evaluation.cases import find
from evaluation.errors import EvaluationError
from tests.submissions import AFFINE, lesion, save, write_cases


def test_scans_and_masks_are_paired_by_name(tmp_path: Path) -> None:
    scans, labels = write_cases(tmp_path, ["b", "a_1"])
    save(labels / "another.nii.gz", lesion())
    save(scans / "plain.nii.gz", lesion())
    save(labels / "plain.nii.gz", lesion())
    (scans / ".a_0000.nii.gz").write_bytes(b"what a copy in progress leaves")
    found = find(scans, labels)
    assert [case.name for case in found] == ["a_1", "b", "plain"]
    assert found[0].mask_name == "a_1.nii.gz"
    assert found[0].reference == labels / "a_1.nii.gz"
    assert found[0].grid.shape_zyx == (10, 20, 24)


def test_channels_of_one_case_belong_together(tmp_path: Path) -> None:
    for name in ("x_0001", "x_0000", "y_0000"):
        save(tmp_path / f"{name}.nii.gz", lesion())
    found = find(tmp_path)
    assert [[path.name for path in case.scans] for case in found] == [
        ["x_0000.nii.gz", "x_0001.nii.gz"],
        ["y_0000.nii.gz"],
    ]
    assert [case.reference for case in found] == [None, None]


def test_one_file_is_one_case(tmp_path: Path) -> None:
    scans, _ = write_cases(tmp_path, ["a", "b"])
    assert [case.name for case in find(scans / "b_0000.nii.gz")] == ["b"]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    scans, labels = write_cases(tmp_path, list("abcde"))
    with pytest.raises(EvaluationError, match=r"nowhere: no such folder"):
        find(tmp_path / "nowhere", labels)
    with pytest.raises(EvaluationError, match=r"nowhere: no such folder"):
        find(scans, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(EvaluationError, match=r"empty: holds no \.nii\.gz"):
        find(tmp_path / "empty")
    for name in "abcd":
        (labels / f"{name}.nii.gz").unlink()
    with pytest.raises(EvaluationError, match=r"lacks a\.nii\.gz, .* and 1 more"):
        find(scans, labels)


def test_a_mask_of_another_size_is_found_before_anything_runs(tmp_path: Path) -> None:
    scans, labels = write_cases(tmp_path, ["a"])
    save(labels / "a.nii.gz", np.zeros((24, 20, 9), np.uint8))
    with pytest.raises(EvaluationError, match=r"a\.nii\.gz: has \(24, 20, 9\) voxels"):
        find(scans, labels)


def test_numbers_that_do_not_start_at_0000_are_names(tmp_path: Path) -> None:
    for name in ("T_0001", "T_0002"):
        save(tmp_path / f"{name}.nii.gz", lesion())
    assert [case.name for case in find(tmp_path)] == ["T_0001", "T_0002"]


@pytest.mark.parametrize("names", [("x", "x_0000"), ("x_0000", "x_0002")])
def test_files_that_could_be_one_case_or_two_are_refused(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    for name in names:
        save(tmp_path / f"{name}.nii.gz", lesion())
    with pytest.raises(EvaluationError, match=r"expected x\.nii\.gz, or x_0000\.nii\.gz"):
        find(tmp_path)


def test_a_mask_off_its_scans_grid_is_said(tmp_path: Path) -> None:
    scans, labels = write_cases(tmp_path, ["a"])
    assert find(scans, labels)[0].remarks == ()
    save(labels / "a.nii.gz", lesion(), np.diag([0.8, -0.8, 2.5, 1.0]))
    (remark,) = find(scans, labels)[0].remarks
    assert "not on the scan's grid: its direction" in remark


def test_a_header_with_two_readings_is_said(tmp_path: Path) -> None:
    scans, _ = write_cases(tmp_path, ["a"])
    path = scans / "a_0000.nii.gz"
    scan = nibabel.Nifti1Image(lesion(), AFFINE)
    scan.header["pixdim"][3] += np.float32(0.0002)
    nibabel.save(scan, path)
    (remark,) = find(scans)[0].remarks
    assert remark == (
        f"{path}: its header can be read in two ways (spacing is (0.8, 0.8, 2.5) or"
        " (0.8, 0.8, 2.5002)); a mask by either is on its grid"
    )
