from pathlib import Path

import pytest
import SimpleITK as sitk

from evaluation.errors import EvaluationError
from evaluation.volumes import geometry_difference, lesion_ml, read


def image() -> sitk.Image:
    made = sitk.Image(4, 5, 6, sitk.sitkUInt8)
    made.SetSpacing((0.7, 0.7, 5.0))
    made.SetOrigin((-146.1, 12.3, -777.5))
    return made


def test_a_copy_through_nifti_has_the_same_geometry(tmp_path: Path) -> None:
    sitk.WriteImage(image(), str(tmp_path / "a.nii.gz"))
    assert geometry_difference(image(), read(tmp_path / "a.nii.gz")) is None


def test_every_part_of_the_geometry_is_compared() -> None:
    assert "size is (4, 6, 5)" in str(
        geometry_difference(image(), sitk.Image(4, 6, 5, sitk.sitkUInt8))
    )
    for part, value in (
        ("Spacing", (0.7, 0.7, 5.001)),
        ("Origin", (-146.1, 12.3, -777.4)),
        ("Direction", (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)),
    ):
        mask = image()
        getattr(mask, f"Set{part}")(value)
        assert str(geometry_difference(image(), mask)).startswith(f"{part.lower()} is (")


def test_lesion_volume_is_voxels_times_spacing() -> None:
    mask = image()
    mask[0, 0, 0] = mask[1, 2, 3] = 1
    assert lesion_ml(mask) == pytest.approx(2 * 0.7 * 0.7 * 5.0 / 1000)


@pytest.mark.parametrize("content", [None, b"", b"no image"])
def test_unreadable_files_are_named_in_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "bad.nii.gz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EvaluationError, match=r"bad\.nii\.gz") as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_a_4d_image_is_refused(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.Image([2, 2, 2, 2], sitk.sitkUInt8), str(tmp_path / "a.nii.gz"))
    with pytest.raises(EvaluationError, match="3 dimensions"):
        read(tmp_path / "a.nii.gz")
