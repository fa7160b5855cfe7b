"""One-file NIfTI-1 and NIfTI-2 (.nii, .nii.gz): read a scan, write a label map on its grid.

Voxels and spacing follow ITK 5.4 (itkNiftiImageIO.cxx and nifti_clib's nifti_convert_nhdr2nim),
since nnU-Net reads through it and the masks must equal nnU-Net's: spacing comes from pixdim,
whatever qform and sform say, and a rescale is computed in double from values that went through
float32. NIfTI-2, which ITK 5.4 does not read, gets the same rules. Where ITK would return wrong
voxels without a word (truncated data, no NIfTI signature, a dimension of 0) the file is refused.
Layout: nifti1.h and nifti2.h, https://nifti.nimh.nih.gov.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Any, Literal, Protocol, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from isal import igzip_lib, isal_zlib

Array: TypeAlias = npt.NDArray[Any]
Dtype: TypeAlias = np.dtype[Any]

_NIFTI1 = np.dtype(
    [
        ("sizeof_hdr", "<i4"),
        ("analyze", "V35"),  # Analyze 7.5 fields that NIfTI-1 does not use
        ("dim_info", "u1"),
        ("dim", "<i2", 8),
        ("intent_p", "<f4", 3),
        ("intent_code", "<i2"),
        ("datatype", "<i2"),
        ("bitpix", "<i2"),
        ("slice_start", "<i2"),
        ("pixdim", "<f4", 8),
        ("vox_offset", "<f4"),
        ("scl_slope", "<f4"),
        ("scl_inter", "<f4"),
        ("slice_end", "<i2"),
        ("slice_code", "u1"),
        ("xyzt_units", "u1"),
        ("cal", "<f4", 2),
        ("slice_duration", "<f4"),
        ("toffset", "<f4"),
        ("gl", "<i4", 2),
        ("descrip", "V80"),
        ("aux_file", "V24"),
        ("qform_code", "<i2"),
        ("sform_code", "<i2"),
        ("quatern", "<f4", 3),
        ("qoffset", "<f4", 3),
        ("srow", "<f4", (3, 4)),
        ("intent_name", "V16"),
        ("magic", "V4"),
    ]
)
_NIFTI2 = np.dtype(
    [
        ("sizeof_hdr", "<i4"),
        ("magic", "V8"),
        ("datatype", "<i2"),
        ("bitpix", "<i2"),
        ("dim", "<i8", 8),
        ("intent_p", "<f8", 3),
        ("pixdim", "<f8", 8),
        ("vox_offset", "<i8"),
        ("scl_slope", "<f8"),
        ("scl_inter", "<f8"),
        ("cal", "<f8", 2),
        ("slice_duration", "<f8"),
        ("toffset", "<f8"),
        ("slice_start", "<i8"),
        ("slice_end", "<i8"),
        ("descrip", "V80"),
        ("aux_file", "V24"),
        ("qform_code", "<i4"),
        ("sform_code", "<i4"),
        ("quatern", "<f8", 3),
        ("qoffset", "<f8", 3),
        ("srow", "<f8", (3, 4)),
        ("slice_code", "<i4"),
        ("xyzt_units", "<i4"),
        ("intent_code", "<i4"),
        ("intent_name", "V16"),
        ("dim_info", "u1"),
        ("unused", "V15"),
    ]
)
_MAGIC = {_NIFTI1: b"n+1\0", _NIFTI2: b"n+2\0\r\n\x1a\n"}
_DTYPES = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}
_MASK_DATATYPES = {"uint8": 2, "uint16": 512}
_MM_PER_UNIT = {1: 1e3, 3: 1e-3}  # metre, micron; mm and unknown count as mm
_REFUSED_DATATYPES = {
    1: "single bits",
    32: "complex",
    128: "RGB",
    1536: "128-bit float",
    1792: "complex",
    2048: "complex",
    2304: "RGBA",
}
_EPSILON = float(np.finfo(np.float64).eps)
_REPLACE = "copy or export the file again"
_BAD_GZIP = cast(type[Exception], igzip_lib.error)  # isal annotates it as an instance
_GZIP_MAGIC = b"\x1f\x8b"
_DEFLATE_MAX_RATIO = 1032
# Between two pieces a thread that reads waits for its turn while another imports torch; larger ones
# than these no longer stay in the processor's cache while they are copied.
_PACKED_CHUNK = 1 << 20
_CHUNK = 1 << 21
_GZIP_WBITS = 31


class NiftiError(Exception):
    """What is wrong with a file and the remedy, without the file's name."""


@dataclass(frozen=True)
class Header:
    """A header in little-endian order, and the byte order ('<' or '>') its file was written in."""

    fields: Array
    byte_order: Literal["<", ">"]

    @property
    def ndim(self) -> int:
        """Number of dimensions of a slice or volume, 2 or 3; trailing dimensions of 1 dropped."""
        return min(int(self.fields["dim"][0]), 3)


class _Stream(Protocol):
    def readinto(self, target: memoryview, /) -> int | None: ...


class _Gunzip:
    """The content of a gzip file as gzip gives it: all members, and nothing of what is behind."""

    def __init__(self, file: BufferedIOBase) -> None:
        self._file = file
        self._packed = b""
        self._member = igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_GZIP)

    def readinto(self, target: memoryview, /) -> int:
        """Fill a part of target; the number of bytes, 0 at the end."""
        while not self._member.eof or self._next_member():
            packed = b""
            if self._member.needs_input:
                packed, self._packed = self._packed or self._file.read(_PACKED_CHUNK), b""
                if not packed:
                    raise NiftiError(f"the gzip stream ends early; {_REPLACE}")
            try:
                data = self._member.decompress(packed, len(target))
            except _BAD_GZIP as error:
                raise NiftiError(f"the gzip stream is damaged ({error}); {_REPLACE}") from None
            if data:
                target[: len(data)] = data
                return len(data)
        return 0

    def _next_member(self) -> bool:
        rest = self._member.unused_data.lstrip(b"\0")
        while len(rest) < len(_GZIP_MAGIC) and (more := self._file.read(_PACKED_CHUNK)):
            rest = (rest + more).lstrip(b"\0")
        if not rest.startswith(_GZIP_MAGIC):
            return False
        self._packed = rest
        self._member = igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_GZIP)
        return True


def read(file: BufferedIOBase, file_bytes: int) -> tuple[Header, Array, int]:
    """Read a NIfTI file of one volume, gzipped or not, from its first byte on.

    Returns the header, the voxels (z, y, x), contiguous and writable (as stored in native byte
    order if the header asks for no rescale, else float32), and how many of them were not finite:
    these are 0 before the rescale, as ITK makes them. file_bytes is the size of the file. Raises
    NiftiError, and OSError if reading fails.
    """
    # The content decides, as in zlib: a .nii.gz that was never compressed is common enough.
    gzipped = file.read(2) == _GZIP_MAGIC
    file.seek(0)
    stream: _Stream = _Gunzip(file) if gzipped else file
    header = _read_header(stream)
    dtype = _voxel_dtype(header)
    shape = _shape_zyx(header)
    # Python integers, as a damaged header may promise more than 64 bits hold.
    data_bytes = shape[0] * shape[1] * shape[2] * dtype.itemsize
    header_bytes = header.fields.dtype.itemsize
    offset = _offset(header)
    if offset + data_bytes > file_bytes * (_DEFLATE_MAX_RATIO if gzipped else 1):
        raise NiftiError(_truncated(data_bytes))
    _fill(stream, bytearray(offset - header_bytes))
    voxels = np.empty(shape, dtype)
    if _fill(stream, voxels.reshape(-1).view(np.uint8).data) < data_bytes:
        raise NiftiError(_truncated(data_bytes))
    if gzipped:
        # The checksum of a gzip member is compared only when its end is reached.
        rest = bytearray(_CHUNK)
        while _fill(stream, rest):
            pass
    if header.byte_order == ">":
        voxels = voxels.byteswap(inplace=True).view(dtype.newbyteorder("="))
    replaced = zero_nonfinite(voxels)
    return header, _rescaled(voxels, *_slope_intercept(header)), replaced


def zero_nonfinite(voxels: Array) -> int:
    """Set NaN and infinity to 0 in place; returns how many there were."""
    if voxels.dtype.kind != "f":
        return 0
    # NaN and infinity show in the extremes, which need no array of their own.
    with np.errstate(invalid="ignore"):
        if np.isfinite(voxels.min()) and np.isfinite(voxels.max()):
            return 0
    strange = ~np.isfinite(voxels)
    voxels[strange] = 0
    return int(np.count_nonzero(strange))


def spacing(header: Header) -> tuple[float, ...]:
    """Spacing in mm in the order (z, y, x), or (y, x) for a two-dimensional image.

    As ITK does it: |pixdim| in the header's units; 0 or a value that is not finite counts as 1.
    """
    scale = _MM_PER_UNIT.get(int(header.fields["xyzt_units"]) & 7, 1.0)
    steps = (float(step) for step in header.fields["pixdim"][1 : header.ndim + 1])
    return tuple(abs(s if s and np.isfinite(s) else 1.0) * scale for s in steps)[::-1]


def remarks(header: Header) -> tuple[str, ...]:
    """What a user should know of the header's geometry, one phrase each."""
    fields = header.fields
    found = []
    for axis in range(1, header.ndim + 1):
        step = fields["pixdim"][axis]
        if not np.isfinite(step) or step == 0:
            found.append(f"pixdim[{axis}] is {step:g}, a spacing of 1 is assumed")
    if fields["sform_code"] > 0:
        matrix = fields["srow"][:, :3].astype(float)
        lengths = np.linalg.norm(matrix, axis=0)
        if fields["qform_code"] <= 0 and not _orthogonal(matrix):
            found.append("direction is not orthonormal, spacing taken from pixdim")
        elif not np.allclose(
            lengths[: header.ndim], np.abs(fields["pixdim"][1 : header.ndim + 1]), rtol=1e-3
        ):
            columns = " x ".join(f"{length:g}" for length in lengths)
            found.append(f"sform columns are {columns} long, spacing taken from pixdim")
    return tuple(found)


def write_mask(
    file: BufferedIOBase, header: Header, dtype: Dtype, planes: Iterable[Array], *, compressed: bool
) -> None:
    """Write a mask of ``dtype``, uint8 or uint16, little-endian under the geometry of header.

    planes: parts of the mask (z, y, x) in order; each is written before the next is asked for.
    Dimensions, qform, sform, codes, pixdim, units and texts are the header's own bytes; only what
    describes the voxels (type, scaling, offset, display range, intent) changes. Extensions go.
    """
    packer = isal_zlib.compressobj(1, isal_zlib.DEFLATED, _GZIP_WBITS)
    pack = packer.compress if compressed else memoryview
    layout, fields = header.fields.dtype, header.fields.copy()
    fields["sizeof_hdr"] = layout.itemsize
    fields["magic"] = np.void(_MAGIC[layout])
    fields["datatype"] = _MASK_DATATYPES[dtype.name]
    fields["bitpix"] = 8 * dtype.itemsize
    fields["vox_offset"] = layout.itemsize + 4
    fields["scl_slope"] = 1
    fields["scl_inter"] = 0
    fields["cal"] = 0
    fields["intent_code"] = 0
    fields["intent_p"] = 0
    fields["intent_name"] = np.void(bytes(16))
    if layout == _NIFTI1:
        fields["gl"] = 0
    file.write(pack(fields.tobytes() + bytes(4)))  # the four bytes say: no extensions
    for part in planes:
        file.write(pack(np.ascontiguousarray(part, dtype.newbyteorder("<")).data))
    if compressed:
        file.write(packer.flush())


def _read_header(stream: _Stream) -> Header:
    """The header at the start of stream, which is left just behind it."""
    raw = bytearray(_NIFTI1.itemsize)
    if _fill(stream, raw) < len(raw):
        raise NiftiError(f"shorter than a NIfTI header of {len(raw)} bytes; {_REPLACE}")
    if bytes(raw[344:348]) in (b"n+1\0", b"ni1\0"):
        layout = _NIFTI1
    elif bytes(raw[4:8]) in (b"n+2\0", b"ni2\0"):
        layout = _NIFTI2
        more = bytearray(layout.itemsize - len(raw))
        if _fill(stream, more) < len(more):
            raise NiftiError(
                f"shorter than a NIfTI-2 header of {layout.itemsize} bytes; {_REPLACE}"
            )
        raw += more
    else:
        raise NiftiError("no NIfTI signature in the header; convert the scan to NIfTI")
    orders: tuple[Literal["<", ">"], ...] = ("<", ">")
    for byte_order in orders:
        fields = np.frombuffer(raw, layout.newbyteorder(byte_order), 1).reshape(())
        if 1 <= fields["dim"][0] <= 7:
            return Header(fields.astype(layout), byte_order)
    raise NiftiError(f"damaged header (dim[0] is not 1 to 7); {_REPLACE}")


def _voxel_dtype(header: Header) -> Dtype:
    """The type of the stored voxels in the file's byte order."""
    code = int(header.fields["datatype"])
    if code not in _DTYPES:
        kind = _REFUSED_DATATYPES.get(code, "unknown")
        raise NiftiError(
            f"voxels are of NIfTI type {code} ({kind}), expected integers or floats of up to"
            " 64 bits; convert the scan to int16"
        )
    return np.dtype(header.byte_order + _DTYPES[code])


def _shape_zyx(header: Header) -> tuple[int, int, int]:
    """The shape (z, y, x); a two-dimensional image has one slice."""
    ndim, *sizes = (int(size) for size in header.fields["dim"])
    if ndim < 2:
        raise NiftiError("the image has one dimension, expected 3; supply a CT volume")
    x, y, z = (*sizes[: header.ndim], 1)[:3]
    if min(x, y, z) < 1:
        raise NiftiError(f"empty or damaged dimensions {x} x {y} x {z}; {_REPLACE}")
    volumes = math.prod(max(size, 1) for size in sizes[3:ndim])
    if volumes > 1:
        raise NiftiError(f"{volumes} volumes in one file, expected 1; split it into single volumes")
    return z, y, x


def _slope_intercept(header: Header) -> tuple[float, float]:
    """Factor and offset of the rescale, (1, 0) for none.

    nifti_clib turns values that are not finite into 0, and ITK a slope of 0 into 1.
    """
    slope, inter = float(header.fields["scl_slope"]), float(header.fields["scl_inter"])
    if not np.isfinite(slope) or abs(slope) < _EPSILON:
        slope = 1.0
    if not np.isfinite(inter):
        inter = 0.0
    return slope, inter


def _rescaled(voxels: Array, slope: float, inter: float) -> Array:
    """voxels, or slope * voxels + inter in float32, rounded as ITK rounds."""
    if abs(slope - 1) <= _EPSILON and abs(inter) <= _EPSILON:
        return voxels
    rescaled = np.empty(voxels.shape, np.float32)
    # ITK makes float32 of integers before it computes in double.
    through = np.float64 if voxels.dtype == np.float64 else np.float32
    with np.errstate(over="ignore", invalid="ignore"):
        for target, plane in zip(rescaled, voxels, strict=True):
            target[...] = plane.astype(through).astype(np.float64) * slope + inter
    return rescaled


def _orthogonal(matrix: Array) -> bool:
    """ITK's test of an sform: the columns, made unit vectors, give R R' = 1 within 1e-4."""
    with np.errstate(invalid="ignore", divide="ignore"):
        unit = matrix / np.linalg.norm(matrix, axis=0)
    return bool(np.all(np.abs(unit @ unit.T - np.eye(3)) <= 1e-4))


def _fill(stream: _Stream, target: memoryview | bytearray) -> int:
    """Read from stream until target is full; the number of bytes read, fewer at the end."""
    view, filled = memoryview(target), 0
    while filled < len(view):
        count = stream.readinto(view[filled : filled + _CHUNK])
        if not count:
            break
        filled += count
    return filled


def _offset(header: Header) -> int:
    """Where the voxels start; as in nifti_clib never inside the header."""
    stated = float(header.fields["vox_offset"])
    return max(int(stated) if np.isfinite(stated) else 0, header.fields.dtype.itemsize)


def _truncated(data_bytes: int) -> str:
    return f"truncated, the header promises {data_bytes} bytes of voxels; {_REPLACE}"
