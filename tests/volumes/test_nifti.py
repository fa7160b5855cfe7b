"""volumes.nifti against SimpleITK, which nnU-Net reads with, and nibabel, which FLARE does."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from tests.volumes.nifti_files import (
    CODES,
    FLIPPED,
    NIB,
    OBLIQUE,
    ODD_HEADERS,
    SCALED,
    SHAPE_XYZ,
    SKEWED,
    Array,
    Fields,
    read,
    scan_bytes,
)
from volumes import formats, nifti
from volumes.errors import VolumeError

SITK: Any = sitk


def by_itk(path: Path) -> tuple[Array, tuple[float, ...]]:
    """Voxels as nnU-Net gets them, always three-dimensional, and spacing as (z,) y, x."""
    image = SITK.ReadImage(str(path))
    voxels = SITK.GetArrayFromImage(image).astype(np.float32)
    return voxels.reshape((1, *voxels.shape)[-3:]), image.GetSpacing()[::-1]


EXTREMES: dict[str, list[float]] = {
    "u1": [0, 1, 254, 255],
    "i1": [-128, -1, 0, 127],
    "i2": [-32768, -3024, 0, 32767],
    "u2": [0, 1, 40000, 65535],
    "i4": [-(2**31), 2**24 + 1, 2**24 + 3, 2**31 - 1],
    "u4": [0, 2**24 + 1, 2**31, 2**32 - 1],
    "i8": [-(2**62), 2**24 + 1, 2**53, 2**62],
    "u8": [0, 2**24 + 1, 2**53, 2**63],
    "f4": [-1024.1, 1e-42, 0.1, 3e38],
    "f8": [-1024.1, 1e-42, 1 / 3, 16777217.0],
}
SCALES = [
    (slope, inter)
    for slope in (1.0, 0.0, np.nan, np.inf, 1e-20, -1.0, 0.1, 1.5)
    for inter in (0.0, -1024.3, np.nan)
]


class TestEqualsItk:
    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("dtype", CODES)
    def test_voxels_of_every_type_and_scale(self, tmp_path: Path, dtype: str, order: str) -> None:
        path = tmp_path / "scan.nii"
        dim = (3, 2, 2, 1, 1, 1, 1, 1)
        values = np.array(EXTREMES[dtype], dtype)
        for slope, inter in SCALES:
            data = scan_bytes(
                dtype, order=order, dim=dim, values=values, scl_slope=slope, scl_inter=inter
            )
            path.write_bytes(data)
            expected, _ = by_itk(path)
            _, voxels = read(data)
            kept = slope != 0.1 and slope != 1.5 and slope != -1 and inter != -1024.3
            assert voxels.dtype == np.dtype(dtype if kept else "f4")
            with np.errstate(over="ignore"):
                assert voxels.astype(np.float32).tobytes() == expected.tobytes(), (slope, inter)

    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("name", ODD_HEADERS)
    def test_voxels_and_spacing_of_odd_headers(self, tmp_path: Path, name: str, order: str) -> None:
        path = tmp_path / "scan.nii"
        data = scan_bytes(order=order, **ODD_HEADERS[name])
        path.write_bytes(data)
        expected, spacing = by_itk(path)
        header, voxels = read(data)
        assert voxels.shape == expected.shape
        assert voxels.dtype == np.int16
        assert voxels.astype(np.float32).tobytes() == expected.tobytes()
        assert header.spacing == spacing
        assert header.refused_by_itk is None


class TestVersion2:
    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("name", [n for n in ODD_HEADERS if "magic" not in n])
    def test_reads_what_version_1_reads(self, name: str, order: str) -> None:
        fields = ODD_HEADERS[name]
        one, voxels_one = read(scan_bytes(**fields))
        if "vox_offset" in fields:
            fields = {**fields, "vox_offset": 600}
        two, voxels_two = read(scan_bytes(version=2, order=order, **fields))
        assert np.array_equal(voxels_one, voxels_two)
        assert two.spacing == pytest.approx(one.spacing, rel=1e-6)
        assert len(two.remarks) == len(one.remarks)

    def test_rescale_in_double(self) -> None:
        _, voxels = read(scan_bytes("i2", version=2, scl_slope=0.1, scl_inter=-1024.3))
        stored = (np.arange(60) * 7 % 120).reshape(SHAPE_XYZ[::-1])
        assert np.array_equal(voxels, (stored * 0.1 - 1024.3).astype(np.float32))


@pytest.mark.parametrize(
    ("fields", "phrases"),
    [
        ({}, ()),
        ({"sform_code": 1, "srow": FLIPPED}, ()),
        ({"qform_code": 0, "sform_code": 1, "srow": SKEWED}, ("not orthonormal",)),
        ({"qform_code": 0, "sform_code": 1, "srow": np.zeros((3, 4))}, ("spans no volume",)),
        ({"sform_code": 1, "srow": SKEWED}, ("sform columns are",)),
        ({"qform_code": 0, "sform_code": 1, "srow": SCALED}, ("1.6 x 1.8 x 5",)),
        ({"pixdim": [1, 0, 0.9, np.nan, 0, 0, 0, 0]}, ("pixdim[1] is 0", "pixdim[3] is nan")),
    ],
)
def test_remarks(fields: Fields, phrases: tuple[str, ...]) -> None:
    remarks = read(scan_bytes(**fields))[0].remarks
    assert len(remarks) == len(phrases)
    for remark, phrase in zip(remarks, phrases, strict=True):
        assert phrase in remark


def test_itk_refuses_a_skewed_sform_and_we_read_it(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii"
    data = scan_bytes(qform_code=0, sform_code=1, srow=SKEWED)
    path.write_bytes(data)
    with pytest.raises(RuntimeError, match="orthonormal"):
        SITK.ReadImage(str(path))
    header, voxels = read(data)
    assert header.refused_by_itk == "direction is not orthonormal"
    assert header.spacing == pytest.approx((2.5, 0.9, 0.8))
    assert voxels.shape == SHAPE_XYZ[::-1]


def of_type(code: int) -> bytes:
    """A scan whose header names another voxel type; 16 bytes a voxel suffice for each."""
    data = bytearray(scan_bytes("f8"))
    data[70:72] = np.int16(code).tobytes()
    return bytes(data) + bytes(2000)


def of_dim(*dim: int) -> bytes:
    return scan_bytes(dim=(*dim, *[1] * (8 - len(dim))), values=np.zeros(99))


WILD_OFFSET = scan_bytes().replace(np.float32(352).tobytes(), np.float32(1e30).tobytes())
PACKED = gzip.compress(scan_bytes())
TWO_MEMBERS = gzip.compress(scan_bytes()[:400]) + gzip.compress(scan_bytes()[400:])
REFUSED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "shorter than a NIfTI header"),
    "half a header": (scan_bytes()[:300], "shorter than a NIfTI header"),
    "half a NIfTI-2 header": (scan_bytes(version=2)[:500], "shorter than a NIfTI-2 header"),
    "text": (b"hello " * 100, "no NIfTI signature"),
    "Analyze": (scan_bytes(magic=b""), "no NIfTI signature"),
    "dim[0] of 0": (of_dim(0, 5, 4, 3), "dim[0]"),
    "dim[0] of 8": (of_dim(8, 5, 4, 3), "dim[0]"),
    "a line": (of_dim(1, 5), "one dimension"),
    "no columns": (of_dim(3, 0, 4, 3), "empty or damaged dimensions 0 x 4 x 3"),
    "no slices": (of_dim(3, 5, 4, 0), "empty or damaged dimensions 5 x 4 x 0"),
    "negative": (of_dim(3, 5, -4, 3), "empty or damaged dimensions 5 x -4 x 3"),
    "2 volumes": (of_dim(4, 5, 4, 3, 2), "2 volumes in one file"),
    "vectors": (of_dim(5, 5, 4, 3, 1, 3), "3 volumes in one file"),
    "longer than a person": (of_dim(3, 30000, 3, 3), "no person's"),
    "more than there is": (of_dim(3, 1200, 1200, 1400), "truncated"),
    "bits": (of_type(1), "type 1 (single bits)"),
    "complex": (of_type(32), "type 32 (complex)"),
    "RGB": (of_type(128), "type 128 (RGB)"),
    "unknown type": (of_type(4711), "type 4711 (unknown)"),
    "truncated": (scan_bytes()[:-1], "truncated, the header promises 120 bytes"),
    "truncated, gzipped": (gzip.compress(scan_bytes()[:-1]), "truncated"),
    "wild vox_offset": (WILD_OFFSET, "its voxels cannot start at byte"),
    "gzip without its end": (PACKED[:-9], "gzip stream ends early"),
    "gzip without its length": (PACKED[:-1], "gzip stream ends early"),
    "gzip magic only": (b"\x1f\x8b", "gzip stream ends early"),
    "wrong checksum": (PACKED[:-8] + bytes(8), "gzip stream is damaged"),
    "not deflate": (PACKED[:10] + b"\xff" * 300, "gzip stream is damaged"),
    "checksum of the 2nd member": (TWO_MEMBERS[:-8] + bytes(8), "gzip stream is damaged"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_in_one_line(name: str) -> None:
    data, phrase = REFUSED[name]
    with pytest.raises(VolumeError) as caught:
        read(data)
    assert phrase in str(caught.value)
    assert "; " in str(caught.value)
    assert "\n" not in str(caught.value)


PLAIN = scan_bytes(dim=(3, 60, 50, 40, 1, 1, 1, 1), values=np.arange(120000) % 4001)
MEMBERS = b"".join(gzip.compress(PLAIN[i : i + 5000], 1) for i in range(0, len(PLAIN), 5000))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(gzip.compress(PLAIN), id="one member"),
        pytest.param(MEMBERS, id="many members, as bgzip writes"),
        pytest.param(
            gzip.compress(b"") + gzip.compress(PLAIN) + gzip.compress(b""), id="empty members"
        ),
        pytest.param(gzip.compress(PLAIN) + bytes(512), id="zero padding"),
        pytest.param(gzip.compress(PLAIN) + b"rubbish" * 99, id="rubbish behind"),
        pytest.param(MEMBERS + b"x", id="one byte of rubbish behind many members"),
        pytest.param(
            gzip.compress(PLAIN[:999]) + bytes(70000) + gzip.compress(PLAIN[999:]),
            id="padded members",
        ),
        pytest.param(gzip.compress(PLAIN + bytes(1 << 20)), id="more voxels than promised"),
        pytest.param(PLAIN, id="not compressed at all"),
    ],
)
def test_gzip_as_gzip_tools_read_it(data: bytes) -> None:
    _, voxels = read(data)
    assert voxels.tobytes() == PLAIN[352:]
    assert voxels.flags.writeable


# Prefixes of the fields that describe voxels and not their grid.
CHANGED = ("sizeof", "magic", "datatype", "bitpix", "vox", "scl", "cal", "glm", "intent")
REPAIRED = ("zero pixdim", "pixdim not finite", "trailing 0", "rubbish behind the last dimension")
GEOMETRIES: dict[str, Fields] = {
    **{name: ODD_HEADERS[name] for name in ODD_HEADERS if name not in REPAIRED},
    "skewed": {"qform_code": 0, "sform_code": 1, "srow": SKEWED},
    "rich": {
        "dim_info": 57,
        "aux_file": b"aux",
        "slice_end": 2,
        "toffset": 5.0,
        "cal_max": 300.0,
        "cal_min": -200.0,
        "scl_slope": 2.0,
        "scl_inter": -1024.0,
        "intent_code": 1001,
        "intent_p1": 4.0,
        "intent_name": b"estimate",
        "quatern": OBLIQUE,
        "sform_code": 4,
        "srow": FLIPPED,
    },
}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_mask_keeps_the_header(tmp_path: Path, name: str, version: int, order: str) -> None:
    fields = dict(GEOMETRIES[name])
    if version == 2:
        fields.pop("vox_offset", None)
        fields.pop("magic", None)
    scan = scan_bytes(order=order, version=version, **fields)
    header, voxels = read(scan)
    mask = (np.arange(voxels.size) % 3).astype(np.uint8).reshape(voxels.shape)
    path = tmp_path / "mask.nii"
    nifti.write(path, header, mask.dtype, [mask])

    kind = NIB.Nifti1Header if version == 1 else NIB.Nifti2Header
    size = kind.sizeof_hdr
    before = kind(scan[:size], endianness=order, check=False).structarr
    written = path.read_bytes()
    after = kind(written[:size], endianness="<", check=False).structarr
    for field in before.dtype.names:
        if not field.startswith(CHANGED):
            native = before[field].astype(before[field].dtype.newbyteorder("<"))
            assert after[field].tobytes() == native.tobytes(), field
    assert after["datatype"] == CODES["u1"]
    assert after["bitpix"] == 8
    assert after["vox_offset"] == size + 4
    assert (after["scl_slope"], after["scl_inter"]) == (1, 0)
    assert (after["cal_min"], after["cal_max"], after["intent_code"]) == (0, 0, 0)
    assert written[size:] == bytes(4) + mask.tobytes()


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("name", ["rich", "skewed", "both, different", "neither", "metres"])
def test_nibabel_sees_the_same_grid(tmp_path: Path, name: str, version: int) -> None:
    scan, path = tmp_path / "scan.nii", tmp_path / "mask.nii.gz"
    data = scan_bytes(version=version, **GEOMETRIES[name])
    scan.write_bytes(data)
    header, voxels = read(data)
    mask = (np.arange(voxels.size) % 3).astype(np.uint8).reshape(voxels.shape)
    nifti.write(path, header, mask.dtype, [mask])
    before, after = NIB.load(scan), NIB.load(path)
    assert type(after) is type(before)
    assert after.affine.tobytes() == before.affine.tobytes()
    for form in ("get_qform", "get_sform"):
        (was, was_code), (now, now_code) = (
            getattr(i.header, form)(coded=True) for i in (before, after)
        )
        assert now_code == was_code
        assert np.array_equal(now, was) if was_code else now is was is None
    stored = np.asarray(after.dataobj)
    assert stored.dtype == np.uint8
    assert np.array_equal(stored.T, mask)


@pytest.mark.parametrize("name", ODD_HEADERS)
def test_itk_sees_the_same_grid(tmp_path: Path, name: str) -> None:
    scan, mask = tmp_path / "scan.nii", tmp_path / "mask.nii.gz"
    data = scan_bytes(**ODD_HEADERS[name])
    scan.write_bytes(data)
    header, voxels = read(data)
    labels = (np.arange(voxels.size) + 300).astype(np.uint16).reshape(voxels.shape)
    nifti.write(mask, header, labels.dtype, [labels])
    before, after = SITK.ReadImage(str(scan)), SITK.ReadImage(str(mask))
    for what in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(after, what)() == getattr(before, what)(), what
    assert after.GetPixelID() == SITK.sitkUInt16
    assert SITK.GetArrayFromImage(after).tobytes() == labels.tobytes()


NOTHING = [[np.nan] * 4] * 3
DAMAGED: dict[str, tuple[Fields, str]] = {
    "quaternion": ({"quatern": [5, 5, 5]}, "its quaternion is longer than 1"),
    "quaternion beyond rounding": ({"quatern": [1.0000002, 0, 0]}, "its quaternion is longer than"),
    "both forms": (
        {"quatern": [0, 2, 0], "sform_code": 1, "srow": FLIPPED},
        "its quaternion is longer than",
    ),
    "quaternion of NaN": ({"quatern": [np.nan] * 3}, "its quaternion is not finite"),
    "qform nowhere": ({"qoffset_y": np.inf}, "its quaternion is not finite"),
    "sform of NaN": ({"sform_code": 2, "srow": NOTHING}, "its sform spans no volume"),
    "sform of 0": ({"qform_code": 0, "sform_code": 1}, "its sform spans no volume"),
    "pixdim not finite": (ODD_HEADERS["pixdim not finite"], "pixdim[1] is nan, a spacing of 1"),
    "zero pixdim": (ODD_HEADERS["zero pixdim"], "pixdim[3] is 0, a spacing of 1"),
    "7 dimensions of which 4 are 0": ({"dim": (7, 5, 4, 3, 0, 0, 0, 0)}, "dimensions of 0"),
}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("name", DAMAGED)
def test_a_mask_of_a_damaged_header_is_read_by_all(tmp_path: Path, name: str, version: int) -> None:
    fields, says = DAMAGED[name]
    scan, mask = tmp_path / "scan.nii", tmp_path / "mask.nii.gz"
    data = scan_bytes(version=version, **fields)
    scan.write_bytes(data)
    header, voxels = read(data)
    assert says in "; ".join(header.remarks)
    labels = (np.arange(voxels.size) % 3).astype(np.uint8).reshape(voxels.shape)
    nifti.write(mask, header, labels.dtype, [labels])
    after = NIB.load(mask)
    assert np.isfinite(after.affine).all()
    assert np.linalg.det(after.affine) != 0
    assert np.asarray(after.dataobj).tobytes(order="F") == labels.tobytes()
    nifti.read_header(mask, strict=True)
    if version == 2:  # which ITK 5.4 does not read
        return
    of_mask = SITK.ReadImage(str(mask))
    assert SITK.GetArrayFromImage(of_mask).tobytes() == labels.tobytes()
    assert of_mask.GetSpacing()[::-1] == header.spacing
    if name in ("quaternion", "quaternion beyond rounding", "both forms"):
        of_scan = SITK.ReadImage(str(scan))
        assert of_mask.GetDirection() == pytest.approx(of_scan.GetDirection(), abs=1e-6)


@pytest.mark.parametrize(("units", "mm"), [(1, 1000.0), (3, 0.001)])
def test_a_mask_in_another_format_is_in_mm(tmp_path: Path, units: int, mm: float) -> None:
    steps = [step / mm for step in (0.8, 0.9, 2.5)]
    affine = np.diag([*steps, 1])[:3] + [[0, 0, 0, 7 / mm]] * 3
    data = scan_bytes(xyzt_units=units, pixdim=[1, *steps, 1, 0, 0, 0], sform_code=1, srow=affine)
    header, voxels = read(data)
    formats.write(tmp_path / "mask.mha", header, voxels.dtype, [voxels])
    mask = SITK.ReadImage(str(tmp_path / "mask.mha"))
    assert mask.GetSpacing() == pytest.approx((0.8, 0.9, 2.5))
    assert mask.GetOrigin() == pytest.approx((-7, -7, 7))


def test_a_strided_mask_is_written_in_order(tmp_path: Path) -> None:
    header, voxels = read(scan_bytes())
    labels = np.asfortranarray((np.arange(voxels.size) % 7).reshape(voxels.shape).astype(np.uint8))
    nifti.write(tmp_path / "mask.nii.gz", header, labels.dtype, [labels])
    assert np.array_equal(nifti.read(tmp_path / "mask.nii.gz")[1], labels)
