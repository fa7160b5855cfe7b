"""A mask as DICOM-SEG, which refers to the slices that it was made from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from app.dicom.files import parsing, read_elements
from app.image import Array, Image, unwritable
from app.model import ModelConfig
from volumes import VERSION
from volumes.files import replacing

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription
    from pydicom.sr.coding import Code

# Of a label's name; what has none of them is coded by its name alone.
_NEOPLASTIC = ("cancer", "lesion", "metasta", "neoplasm", "nodule", "tumor", "tumour")
_MOST_OF_NAME = 64  # characters (LO)


def write_segmentation(
    path: Path, planes: Iterator[Array], like: Image, config: ModelConfig
) -> None:
    """Write a label map as one segment a label, binary, atomically.

    planes: its parts (z, y, x) in order along z, on the axes of ``like.voxels``. like: the DICOM
    series that it was made from: each frame has the position of its slice and refers to it. Raises
    ImageError, and what ``planes`` raises; nothing is left behind then.
    """
    from highdicom.seg import Segmentation, SegmentationTypeValues
    from highdicom.uid import UID

    stored = like.orientation.stored(planes, like.header.shape_zyx, np.dtype(np.uint16))
    mask = np.concatenate(list(stored))
    segments = _segments(config)
    numbers = np.zeros(
        max(segments) + 1, np.min_scalar_type(len(segments))
    )  # a segment's are 1, 2, 3 …
    numbers[list(segments)] = np.arange(1, len(segments) + 1)
    with parsing():
        result = Segmentation(
            source_images=[read_elements(file, None) for file in like.slices],
            pixel_array=numbers[mask],
            segmentation_type=SegmentationTypeValues.BINARY,
            segment_descriptions=[
                _description(number, name, config)
                for number, name in enumerate(segments.values(), 1)
            ],
            series_instance_uid=UID(),
            series_number=1000,
            sop_instance_uid=UID(),
            instance_number=1,
            manufacturer="flare-lesion",
            manufacturer_model_name="app",
            software_versions=VERSION,
            device_serial_number="0",
            content_creator_name="",
            omit_empty_frames=bool(mask.any()),
            series_description=f"Segmentation by {config.name}"[:_MOST_OF_NAME],
        )
    try:
        with replacing(path) as part:
            result.save_as(part)
    except OSError as error:
        raise unwritable(path, error) from None


def _segments(config: ModelConfig) -> dict[int, str]:
    """The values of a mask, ascending, with their names; background is none."""
    if config.region_values is None:
        return dict(enumerate(config.labels[1:], 1))
    return dict(sorted(zip(config.region_values, config.labels, strict=True)))


def _description(number: int, name: str, config: ModelConfig) -> SegmentDescription:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
    from pydicom.sr.codedict import codes

    category, kind = _codes(name)
    return SegmentDescription(
        segment_number=number,
        segment_label=name[:_MOST_OF_NAME],
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name=config.name[:_MOST_OF_NAME],
            family=codes.DCM.ArtificialIntelligence,
            version=VERSION,
        ),
    )


def _codes(name: str) -> tuple[Code, Code]:
    """Category and type of what a label is (DICOM PS3.16, CID 7150 and 7159)."""
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    if any(word in name.lower() for word in _NEOPLASTIC):
        return codes.cid7150.MorphologicallyAbnormalStructure, codes.cid7159.Neoplasm
    return codes.cid7150.AnatomicalStructure, Code(name, "99NNUNET", name[:_MOST_OF_NAME])
