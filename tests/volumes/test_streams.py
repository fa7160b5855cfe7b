"""However a gzip file falls into pieces, the same is read; and a bomb costs no memory."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.volumes.nifti_files import scan_bytes
from volumes import nifti, streams
from volumes.errors import VolumeError

ROOT = Path(__file__).parents[2]
PLAIN = scan_bytes(
    dim=(3, 30, 20, 10, 1, 1, 1, 1), values=np.random.default_rng(0).integers(-999, 999, 6000)
)
WHOLE = 1 << 24  # larger than any file here: one piece
# Member ends, paddings and the trailer fall on and beside the ends of pieces of these sizes.
SIZES = [(1, 1 << 12), (2, 7), (7, 1000), (64, 64), (1000, 3), (4096, 4096)]


def read_in(packed: int, path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch) -> bytes | str:
    """What read gives for a file: the voxels' bytes, or the message it is refused with."""
    monkeypatch.setattr(streams, "PACKED_CHUNK", packed)
    monkeypatch.setattr(streams, "CHUNK", chunk)
    try:
        return nifti.read(path)[1].tobytes()
    except VolumeError as error:
        return str(error)


def members(rng: np.random.Generator) -> bytes:
    """PLAIN in members of random lengths, empty ones too, with zeros between and behind them."""
    cuts = np.sort(rng.integers(0, len(PLAIN) + 1, rng.integers(0, 6)))
    parts = np.split(np.frombuffer(PLAIN, np.uint8), cuts)
    return b"".join(
        gzip.compress(part.tobytes(), int(rng.integers(0, 10))) + bytes(int(rng.integers(0, 300)))
        for part in parts
    )


def spoil(data: bytes, how: int, rng: np.random.Generator) -> bytes:
    """Data as it is, cut short, with another bit, or with rubbish behind it."""
    at = int(rng.integers(1, len(data)))
    spoilt = bytes([data[at] ^ 1 << int(rng.integers(8))])
    return (data, data[:at], data[:at] + spoilt + data[at + 1 :], data + b"rubbish")[how]


@pytest.mark.parametrize("how", range(4))
@pytest.mark.parametrize("seed", range(8))
def test_pieces_change_nothing(
    seed: int, how: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng([seed, how])
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(spoil(members(rng), how, rng))
    whole = read_in(WHOLE, path, WHOLE, monkeypatch)
    if how in (0, 3):
        assert whole == PLAIN[352:]
    for packed, chunk in SIZES:
        assert read_in(packed, path, chunk, monkeypatch) == whole


# The peak's growth in MiB while a file is read: of 4 GiB of zeros behind a scan of 1 KiB, or of a
# header that promises as much and has little behind it. Not ru_maxrss: a process starts with its
# parent's.
BOMB = """
import sys
from pathlib import Path
from volumes import nifti
from volumes.errors import VolumeError

def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024

before = peak()
try:
    nifti.read(Path(sys.argv[1]))
except VolumeError as error:
    print(error, file=sys.stderr)
print(peak() - before)
"""


def bomb(dim: tuple[int, ...], zeros: int) -> bytes:
    """A gzip file of a scan's header and so many MiB of zeros."""
    head = scan_bytes(dim=(3, *dim, 1, 1, 1, 1), values=np.zeros(0))
    member = gzip.compress(bytes(1 << 20))
    return gzip.compress(head) + member * zeros


@pytest.mark.parametrize("zeros", [0, 1])
def test_members_without_end(zeros: int, tmp_path: Path) -> None:
    """Few bytes of a file each: what copies the rest of it for each takes minutes."""
    file = tmp_path / "scan.nii.gz"
    nothing = gzip.compress(b"") + bytes(zeros)
    file.write_bytes(nothing * 1000 + gzip.compress(PLAIN[:400]) + gzip.compress(PLAIN[400:]))
    with pytest.raises(VolumeError, match="over 1000 gzip members with next to nothing in"):
        nifti.read(file)
    file.write_bytes(nothing * 998 + gzip.compress(PLAIN[:400]) + gzip.compress(PLAIN[400:]))
    assert nifti.read(file)[1].tobytes() == PLAIN[352:]


@pytest.mark.parametrize(
    ("dim", "zeros", "says"),
    [
        ((8, 8, 8), 4096, "goes on for over 16777216 bytes behind its voxels"),
        ((1024, 1024, 1500), 1, "truncated, the header promises 3145728000"),
    ],
)
def test_a_bomb_costs_no_memory(
    dim: tuple[int, ...], zeros: int, says: str, tmp_path: Path
) -> None:
    file = tmp_path / "bomb.nii.gz"
    file.write_bytes(bomb(dim, zeros))
    done = subprocess.run([sys.executable, "-c", BOMB, file], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.decode().startswith(says)
    assert float(done.stdout) < 32
