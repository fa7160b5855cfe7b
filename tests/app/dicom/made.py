"""CT series as scanners write them, made from arrays by pydicom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

Array = NDArray[Any]

AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
# Rows and columns of a plane turned about two axes.
OBLIQUE = ((0.96, 0.28, 0.0), (-0.224, 0.768, 0.6))
ORIGIN = (-120.5, 33.25, 800.0)
SERIES = "1.2.826.0.1.3680043.8.498.1"
SHAPE, SPACING = (6, 24, 22), (4.0, 1.2, 1.3)  # z, y, x


def ct(seed: int = 0) -> Array:
    """Hounsfield units as twelve bits hold them, int16."""
    return np.random.default_rng(seed).integers(-1024, 3072, SHAPE).astype(np.int16)


def slices(
    hounsfield: Array,
    spacing: tuple[float, float, float],
    axes: Sequence[Sequence[float]] = AXIAL,
    step: Sequence[float] | None = None,
) -> list[Dataset]:
    """One dataset for each plane of a CT (z, y, x; HU), in the order of z.

    spacing: z, y, x. step: from one plane to the next (mm, LPS+), along the normal by default.
    """
    row, column = np.array(axes)
    along = spacing[0] * np.cross(row, column) if step is None else np.array(step)
    study, frame = generate_uid(entropy_srcs=["study"]), generate_uid(entropy_srcs=["frame"])
    made = []
    for number, plane in enumerate(hounsfield):
        one = Dataset()
        one.file_meta = FileMetaDataset()
        one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = CTImageStorage
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = study, SERIES, frame
        one.PatientName, one.PatientID, one.PatientBirthDate, one.PatientSex = "A^B", "1", "", ""
        one.StudyID, one.StudyDate, one.StudyTime, one.AccessionNumber = "", "", "", ""
        one.ReferringPhysicianName, one.Manufacturer, one.Modality = "", "", "CT"
        one.SeriesNumber, one.InstanceNumber = 3, number + 1
        one.SeriesDescription = "Thorax 5.0"
        one.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        one.SliceThickness = spacing[0]
        one.ImagePositionPatient = [round(v, 6) for v in ORIGIN + number * along]
        one.ImageOrientationPatient = [*row.tolist(), *column.tolist()]
        one.PixelSpacing = [spacing[1], spacing[2]]
        one.Rows, one.Columns = plane.shape
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 12, 11, 0
        one.RescaleSlope, one.RescaleIntercept = 1, -1024
        one.PixelData = (plane + 1024).astype("<u2").tobytes()
        made.append(one)
    return made


def save(folder: Path, datasets: Sequence[Dataset], seed: int | None = None) -> Path:
    """Write datasets under names that do not tell their order (``seed``), or do (None)."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = np.arange(len(datasets))
    if seed is not None:
        np.random.default_rng(seed).shuffle(numbers)
    for number, dataset in zip(numbers, datasets, strict=True):
        dataset.save_as(folder / f"IM{number:04d}.dcm", enforce_file_format=True)
    return folder


def change(**elements: Any) -> Callable[[Dataset], None]:
    """Something to do with a dataset: set elements; None deletes one."""

    def apply(dataset: Dataset) -> None:
        for keyword, value in elements.items():
            if value is None:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, value)

    return apply
