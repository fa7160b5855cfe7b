"""app.dicom.segmentation: read again by highdicom and by dcmqi, it lies where the mask lies."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom
import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import Dataset, dcmread

from app.dicom.segmentation import write_segmentation
from app.image import Image, ImageError, read_image, write_planes
from app.model import ModelConfig
from tests.app.conftest import names
from tests.app.dicom.made import OBLIQUE, SHAPE, SPACING, Array, ct, save, slices
from tests.app.small_model import CONFIG
from volumes.grid import LPS

LABELS = replace(CONFIG, labels=("background", "liver", "Liver tumour, of whatever kind"))
REGIONS = replace(CONFIG, labels=("whole", "core"), region_values=(2, 1))
GEOMETRIES: dict[str, dict[str, Any]] = {
    "axial": {},
    "oblique": {"axes": OBLIQUE},
    "counted downwards": {"step": (0.0, 0.0, -4.0)},
    "tilted": {"step": (0.0, 1.0, 4.0)},
}


def labels(most: int = 2) -> Array:
    """Every label, one slice and the border without any."""
    mask = np.random.default_rng(1).integers(0, most + 1, SHAPE).astype(np.uint8)
    mask[2] = mask[:, 0] = 0
    return mask


def written(folder: Path, mask: Array, config: ModelConfig, **geometry: Any) -> tuple[Path, Image]:
    """The mask as DICOM-SEG, in two parts, and the scan."""
    scan = read_image(save(folder / "in", slices(ct(), SPACING, **geometry), seed=1))
    write_segmentation(folder / "mask.dcm", iter((mask[:4], mask[4:])), scan, config)
    return folder / "mask.dcm", scan


def places(voxels: Array, affine: Array) -> set[tuple[float, ...]]:
    """Where the voxels that are not 0 lie (RAS+, 0.001 mm)."""
    points = np.argwhere(voxels)[:, ::-1] @ affine[:3, :3].T + affine[:3, 3]
    return set(map(tuple, (points.round(3) + 0.0).tolist()))


def places_of_frames(file: Path, number: int) -> set[tuple[float, ...]]:
    """The same of a segment, each frame by what it says of its own plane."""
    dataset = dcmread(file)
    frames = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    axes = np.reshape(shared.PlaneOrientationSequence[0].ImageOrientationPatient, (2, 3))
    spacing_y, spacing_x = shared.PixelMeasuresSequence[0].PixelSpacing
    found: set[tuple[float, ...]] = set()
    for frame, own in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        if own.SegmentIdentificationSequence[0].ReferencedSegmentNumber != number:
            continue
        affine = np.eye(4)
        affine[:3, 0], affine[:3, 1] = axes[0] * spacing_x, axes[1] * spacing_y
        affine[:3, 3] = own.PlanePositionSequence[0].ImagePositionPatient
        found |= places(frame[None], LPS @ affine)
    return found


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("config", [LABELS, REGIONS], ids=["labels", "regions"])
def test_frames_lie_where_the_nifti_mask_lies(
    name: str, config: ModelConfig, tmp_path: Path
) -> None:
    mask = labels()
    file, scan = written(tmp_path, mask, config, **GEOMETRIES[name])
    write_planes(tmp_path / "mask.nii.gz", iter([mask]), np.uint8, scan)
    nifti: Any = nibabel.load(tmp_path / "mask.nii.gz")
    stored = np.asarray(nifti.dataobj).transpose()
    for value in (1, 2):
        expected = places(stored == value, nifti.affine)
        assert len(expected) > 100
        assert places_of_frames(file, value) == expected


@pytest.mark.parametrize("name", [name for name in GEOMETRIES if name != "tilted"])
def test_dcmqi_reads_the_same_mask(name: str, tmp_path: Path) -> None:
    mask = labels()
    file, scan = written(tmp_path, mask, LABELS, **GEOMETRIES[name])
    write_planes(tmp_path / "mask.nii", iter([mask]), np.uint8, scan)
    program = str(Path(sys.executable).with_name("segimage2itkimage"))
    options = ["--inputDICOM", str(file), "--outputDirectory", str(tmp_path), "-t", "nifti"]
    subprocess.run([program, *options], check=True, capture_output=True)
    nifti = sitk.ReadImage(tmp_path / "mask.nii")
    for value in (1, 2):
        found = sitk.ReadImage(tmp_path / f"{value}.nii.gz")
        assert np.array_equal(sitk.GetArrayFromImage(found) > 0, mask == value)
        for of in (sitk.Image.GetSpacing, sitk.Image.GetOrigin, sitk.Image.GetDirection):
            assert of(found) == pytest.approx(of(nifti), abs=1e-5)


def test_it_says_what_it_is_and_what_it_is_of(tmp_path: Path) -> None:
    file, scan = written(tmp_path, labels(), LABELS)
    result = highdicom.seg.segread(file)
    source = [dcmread(f) for f in scan.slices]
    first: Dataset = source[0]
    for keyword in ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert result[keyword].value == first[keyword].value
    assert result.SeriesInstanceUID != first.SeriesInstanceUID
    assert result.SegmentationType == "BINARY"
    (referenced,) = result.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == first.SeriesInstanceUID
    assert {i.ReferencedSOPInstanceUID for i in referenced.ReferencedInstanceSequence} == {
        one.SOPInstanceUID for one in source
    }
    organ, lesion = (result.get_segment_description(n) for n in (1, 2))
    assert (organ.segment_label, lesion.segment_label) == LABELS.labels[1:]
    assert lesion.segmented_property_type.value == "108369006"  # SNOMED CT: neoplasm
    assert lesion.segmented_property_category.value == "49755003"
    assert organ.segmented_property_type.scheme_designator == "99NNUNET"
    assert organ.segmented_property_type.meaning == "liver"
    frames = result.get_pixels_by_source_instance([one.SOPInstanceUID for one in source])
    assert np.array_equal(frames[..., 1], labels() == 2)


def test_a_mask_without_a_lesion_is_one_too(tmp_path: Path) -> None:
    file, scan = written(tmp_path, np.zeros(SHAPE, np.uint8), CONFIG)
    result = highdicom.seg.segread(file)
    uids = [dcmread(f).SOPInstanceUID for f in scan.slices]
    assert not result.get_pixels_by_source_instance(uids).any()


def test_a_mask_that_fails_leaves_nothing(tmp_path: Path) -> None:
    scan = read_image(save(tmp_path / "in", slices(ct(), SPACING)))

    def planes() -> Iterator[Array]:
        yield labels()[:2]
        raise ValueError("no more")

    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match="no more"):
        write_segmentation(tmp_path / "out" / "mask.dcm", planes(), scan, CONFIG)
    (tmp_path / "file").write_text("")
    with pytest.raises(ImageError, match=r"cannot be written \((File exists|Not a directory)\)"):
        write_segmentation(tmp_path / "file" / "mask.dcm", iter([labels(1)]), scan, CONFIG)
    assert names(tmp_path / "out") == []
