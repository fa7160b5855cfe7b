"""app.dicom: the volume of a folder, as ITK (GDCM) reads it; what is told apart, in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import (
    EnhancedCTImageStorage,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from app.image import Image, ImageError, read_image, write_planes
from tests.app.dicom.made import (
    OBLIQUE,
    ORIGIN,
    SERIES,
    SHAPE,
    SPACING,
    change,
    ct,
    save,
    slices,
)
from volumes import formats
from volumes.grid import LPS


def by_itk(folder: Path) -> Any:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder), SERIES))
    return reader.Execute()


def check_as_itk(folder: Path, image: Image) -> None:
    """Voxels, spacing, origin and direction; and the NIfTI that ITK makes has the same header."""
    itk = by_itk(folder)
    assert np.array_equal(image.voxels, sitk.GetArrayFromImage(itk).astype(np.float32))
    spacing, origin, direction = image.header.grid.lps()
    assert spacing == pytest.approx(itk.GetSpacing(), rel=1e-6)
    assert origin == pytest.approx(itk.GetOrigin(), abs=1e-4)
    assert direction.ravel().tolist() == pytest.approx(itk.GetDirection(), abs=1e-6)
    sitk.WriteImage(itk, folder.with_suffix(".nii"))
    header, voxels, _ = formats.read(folder.with_suffix(".nii"))
    assert np.array_equal(image.voxels, voxels.astype(np.float32))
    assert image.spacing_zyx == header.spacing


@pytest.mark.parametrize("seed", [None, 1])
@pytest.mark.parametrize(
    "geometry",
    [
        {},
        {"axes": OBLIQUE},
        {"step": (0.0, 0.0, -4.0)},
        {"axes": ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0))},  # coronal
        {"axes": ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0))},  # prone
    ],
    ids=["axial", "oblique", "counted downwards", "coronal", "prone"],
)
def test_a_series_is_read_as_by_itk(
    geometry: dict[str, Any], seed: int | None, tmp_path: Path
) -> None:
    folder = save(tmp_path / "in", slices(ct(), SPACING, **geometry), seed)
    image = read_image(folder)
    check_as_itk(folder, image)
    assert image.voxels.dtype == np.int16
    assert image.notes == ()
    assert len(image.slices) == len(set(image.slices)) == SHAPE[0]


@pytest.mark.parametrize(
    ("elements", "dtype"),
    [
        ({"RescaleSlope": 2}, "int16"),
        ({"RescaleSlope": "1.5", "RescaleIntercept": "-1000.25"}, "float32"),
        ({"BitsStored": 16, "HighBit": 15}, "int32"),
        ({"RescaleIntercept": 30000}, "int32"),
        (
            {"PixelRepresentation": 1, "BitsStored": 16, "HighBit": 15, "RescaleIntercept": 0},
            "int16",
        ),
        ({"RescaleSlope": -1, "RescaleIntercept": 4}, "int16"),
    ],
)
def test_rescaled_as_by_itk(elements: dict[str, Any], dtype: str, tmp_path: Path) -> None:
    made = slices(ct(), SPACING)
    for one in made:
        change(**elements)(one)
    image = read_image(save(tmp_path / "in", made))
    check_as_itk(tmp_path / "in", image)
    assert image.voxels.dtype == dtype


def test_every_slice_has_its_own_rescale(tmp_path: Path) -> None:
    made, voxels = slices(ct(), SPACING), ct().astype(np.float32)
    change(RescaleSlope="0.5", RescaleIntercept=10)(made[2])
    voxels[2] = (voxels[2] + 1024) * 0.5 + 10
    assert np.array_equal(read_image(save(tmp_path, made)).voxels, voxels)


@pytest.mark.parametrize(("allocated", "stored"), [(8, "u1"), (32, "<u4")])
def test_pixels_of_other_sizes(allocated: int, stored: str, tmp_path: Path) -> None:
    values = ct() % 256 - 1024
    made = slices(values, SPACING)
    for one, plane in zip(made, values, strict=True):
        one.BitsAllocated, one.BitsStored, one.HighBit = allocated, 8, 7
        one.PixelData = (plane + 1024).astype(stored).tobytes()
    assert np.array_equal(read_image(save(tmp_path, made)).voxels, values)


def test_signed_pixels_and_an_overlay_above_them(tmp_path: Path) -> None:
    values = ct().clip(max=2047)
    made = slices(values, SPACING)
    for one, plane in zip(made, values, strict=True):
        change(PixelRepresentation=1, RescaleIntercept=0)(one)
        overlay = np.arange(plane.size).reshape(plane.shape) % 16 << 12
        one.PixelData = (plane.astype(np.uint16) & 0xFFF | overlay).astype("<u2").tobytes()
    assert np.array_equal(read_image(save(tmp_path, made)).voxels, values)


@pytest.mark.parametrize("name", ["CT_small.dcm", "693_J2KI.dcm", "J2K_pixelrep_mismatch.dcm"])
def test_slices_of_scanners_are_read_as_by_itk(name: str, tmp_path: Path) -> None:
    """pydicom's own samples: of a GE, packed as JPEG 2000, and packed with another sign."""
    original = dcmread(str(get_testdata_file(name, download=False)))
    for number in range(2):
        original.ImagePositionPatient, original.SOPInstanceUID = [0, 0, number], generate_uid()
        original.SeriesInstanceUID = SERIES
        original.save_as(tmp_path / f"{number}.dcm")
    image = read_image(tmp_path)
    assert np.array_equal(image.voxels, sitk.GetArrayFromImage(by_itk(tmp_path)))
    assert image.voxels.std() > 100


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_compressed_pixels(syntax: str, tmp_path: Path) -> None:
    made = slices(ct(), SPACING)
    for one in made:
        one.compress(syntax, generate_instance_uid=False)
    check_as_itk(tmp_path / "in", read_image(save(tmp_path / "in", made)))


def test_a_tilted_gantry_is_said_and_its_planes_lie_where_they_were(tmp_path: Path) -> None:
    step = (0.0, 1.0, 4.0)  # atan(1 / 4) is 14.04 degrees
    folder = save(tmp_path / "in", slices(ct(), SPACING, step=step))
    image = read_image(folder)
    (note,) = image.notes
    assert note.startswith("gantry tilted by 14.0 degrees: segmented as acquired")
    itk = by_itk(folder)
    assert np.array_equal(image.voxels, sitk.GetArrayFromImage(itk))
    assert image.spacing_zyx == pytest.approx(itk.GetSpacing()[::-1], rel=1e-6)
    write_planes(tmp_path / "mask.nii", iter([image.voxels]), np.int16, image)
    read = sitk.ReadImage(tmp_path / "mask.nii")
    assert read.GetOrigin() == pytest.approx(itk.GetOrigin())
    assert read.GetDirection() == pytest.approx(itk.GetDirection())
    last = LPS @ image.header.grid.affine @ [0, 0, SHAPE[0] - 1, 1]
    assert last[:3] == pytest.approx(np.array(ORIGIN) + (SHAPE[0] - 1) * np.array(step))


def test_a_tilt_of_less_than_a_tenth_of_a_pixel_is_none(tmp_path: Path) -> None:
    step = (0.0, 0.02, 4.0)  # 0.1 mm from first to last; a pixel measures 1.2
    image = read_image(save(tmp_path / "in", slices(ct(), SPACING, step=step)))
    assert image.notes == ()
    check_as_itk(tmp_path / "in", image)


def test_what_is_no_slice_is_set_aside_with_a_word(tmp_path: Path) -> None:
    made = slices(ct(), SPACING)
    scout, capture = slices(ct(), SPACING)[:2]
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    scout.SeriesInstanceUID = f"{SERIES}.1"
    capture.SOPClassUID = SecondaryCaptureImageStorage
    save(tmp_path / "in", made)
    scout.save_as(tmp_path / "in" / "scout", enforce_file_format=True)
    capture.save_as(tmp_path / "in" / "capture", enforce_file_format=True)
    for name in ("README", ".hidden", "DICOMDIR"):
        (tmp_path / "in" / name).write_text("text")
    (tmp_path / "in" / "older").mkdir()
    image = read_image(tmp_path / "in")
    assert np.array_equal(image.voxels, ct())
    assert image.notes == (
        "set aside, as no slices of a CT: 2 (capture, scout)",
        "ignored, as not DICOM: 1 (README)",
    )


def test_a_series_among_others_is_chosen_by_its_uid(tmp_path: Path) -> None:
    made, other = slices(ct(), SPACING), slices(ct(1), SPACING)[:-2]
    for one in other:
        one.SeriesInstanceUID, one.SeriesDescription = f"{SERIES}.2", "Lung\x1b[2J 1.0 \n"
    folder = save(tmp_path / "in", [*made, *other], seed=0)
    assert np.array_equal(read_image(folder, series=SERIES).voxels, ct())
    assert np.array_equal(read_image(folder, series=f"{SERIES}.2").voxels, ct(1)[:-2])
    for uid, remedy in ((None, "choose with --series UID"), ("1.2.3", "none is --series 1.2.3")):
        with pytest.raises(ImageError) as refused:
            read_image(folder, series=uid)
        assert sorted(refused.value.args) == [
            f'{folder}: holds series {SERIES}, "Thorax 5.0", 6 slices; {remedy}',
            f'{folder}: holds series {SERIES}.2, "Lung\N{REPLACEMENT CHARACTER}[2J 1.0", 4 slices;'
            f" {remedy}",
        ]


def test_another_series_in_one_file_is_no_hindrance(tmp_path: Path) -> None:
    enhanced = slices(ct(), SPACING)[0]
    enhanced.SOPClassUID, enhanced.SeriesInstanceUID = EnhancedCTImageStorage, f"{SERIES}.2"
    folder = save(tmp_path, [*slices(ct(), SPACING), enhanced])
    assert np.array_equal(read_image(folder, series=SERIES).voxels, ct())
    with pytest.raises(ImageError, match="Enhanced CT"):
        read_image(folder, series=f"{SERIES}.2")


def test_a_copy_is_left_out_with_a_word(tmp_path: Path) -> None:
    made = slices(ct(), SPACING)
    image = read_image(save(tmp_path, [*made, made[2]]))
    assert np.array_equal(image.voxels, ct())
    assert image.notes == ("left out as copies of other slices: 1 (IM0006.dcm)",)
    assert [f.name for f in image.slices] == [f"IM{n:04d}.dcm" for n in range(6)]


def without(number: int) -> Callable[[list[Dataset]], object]:
    return lambda made: made.pop(number)


def move(number: int, mm: float) -> Callable[[list[Dataset]], object]:
    def apply(made: list[Dataset]) -> None:
        x, y, z = made[number].ImagePositionPatient
        made[number].ImagePositionPatient = [x, y, z + mm]

    return apply


def of_slice(number: int, **elements: Any) -> Callable[[list[Dataset]], object]:
    return lambda made: change(**elements)(made[number])


def another_image(made: list[Dataset]) -> None:
    made.append(slices(ct(1), SPACING)[3])


def of_every_slice(**elements: Any) -> Callable[[list[Dataset]], object]:
    return lambda made: [change(**elements)(one) for one in made]


def several_slices_in_one_file(made: list[Dataset]) -> None:
    made[0].SOPClassUID = EnhancedCTImageStorage


# How the slices of a series are changed, and what is said of it.
WRONG: dict[str, tuple[Callable[[list[Dataset]], object], str]] = {
    "missing": (without(2), "8 mm from IM0001.dcm to IM0002.dcm, elsewhere 4 mm (1 missing)"),
    "uneven": (
        move(5, 1.0),
        "5 mm from IM0004.dcm to IM0005.dcm, elsewhere 4 mm (uneven spacing)",
    ),
    "a plane shifted sideways": (
        of_slice(2, ImagePositionPatient=[-110.5, 33.25, 808.0]),
        "to IM0002.dcm, elsewhere 4 mm (2 missing)",
    ),
    "two acquisitions": (
        another_image,
        "IM0006.dcm: another image than IM0003.dcm at the same position (812 mm along the series)",
    ),
    "another size": (of_slice(1, Rows=12, Columns=44), "IM0001.dcm: its Rows and Columns differ"),
    "another pixel spacing": (
        of_slice(1, PixelSpacing=[1.2, 1.4]),
        "IM0001.dcm: its PixelSpacing differ",
    ),
    "another orientation": (
        of_slice(1, ImageOrientationPatient=[*OBLIQUE[0], *OBLIQUE[1]]),
        "IM0001.dcm: its ImageOrientationPatient differ from those of IM0000.dcm",
    ),
    "a giant": (of_every_slice(PixelSpacing=[200, 200]), "are no person's"),
    "one slice": (lambda made: made.__delitem__(slice(1, None)), "has one slice"),
    "several slices in one file": (several_slices_in_one_file, "IM0000.dcm: Enhanced CT"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_series_that_is_no_volume_is_refused(name: str, tmp_path: Path) -> None:
    spoil, message = WRONG[name]
    made = slices(ct(), SPACING)
    spoil(made)
    with pytest.raises(ImageError) as refused:
        read_image(save(tmp_path, made))
    assert str(refused.value).startswith(f"{tmp_path}")
    assert message in str(refused.value)
    assert len(str(refused.value).removeprefix(str(tmp_path))) <= 300


def test_a_little_unevenness_is_none(tmp_path: Path) -> None:
    made = slices(ct(), SPACING)
    move(3, 0.3)(made)
    image = read_image(save(tmp_path, made))
    assert (image.notes, image.spacing_zyx[0]) == ((), 4.0)


def test_a_file_has_no_series(tmp_path: Path) -> None:
    file = tmp_path / "X.nii"
    sitk.WriteImage(sitk.GetImageFromArray(ct()), file)
    with pytest.raises(ImageError, match="a file has no series to choose from"):
        read_image(file, series=SERIES)


def test_a_folder_without_slices_is_refused(tmp_path: Path) -> None:
    (one, *_) = slices(ct(), SPACING)
    one.SOPClassUID = SecondaryCaptureImageStorage
    with pytest.raises(ImageError, match="holds no slice of a CT"):
        read_image(save(tmp_path, [one]))
