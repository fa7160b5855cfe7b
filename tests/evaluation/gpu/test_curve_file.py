import gzip
from pathlib import Path

import numpy as np
import pytest

from evaluation.errors import EvaluationError
from evaluation.gpu.curve import Curve
from evaluation.gpu.curve_file import read_curve, write_curve


def random_curve(count: int, reserved_mib: float) -> Curve:
    rng = np.random.default_rng(1)
    before_s = 54321.0 + np.cumsum(rng.uniform(0.01, 0.03, count))
    used_mib = rng.integers(0, 2**14, count) / 256  # whole pages of 4 KiB
    return Curve(
        before_s=before_s,
        after_s=before_s + 0.001,
        used_mib=used_mib,
        free_mib=24576 - used_mib,
        reserved_mib=np.full(count, reserved_mib),
        total_mib=np.full(count, 24576.0),
    )


@pytest.mark.parametrize("reserved_mib", [500.0625, np.nan], ids=["v2", "v1"])
@pytest.mark.parametrize("count", [0, 1, 500])
def test_round_trip(tmp_path: Path, count: int, reserved_mib: float) -> None:
    path = tmp_path / "new" / "curve.csv.gz"
    curve = random_curve(count, reserved_mib)
    write_curve(path, curve, origin_s=54322.0)
    again = read_curve(path)
    assert again.api == curve.api
    np.testing.assert_allclose(again.before_s, curve.before_s - 54322.0, rtol=0, atol=1e-6)
    np.testing.assert_allclose(again.after_s, curve.after_s - 54322.0, rtol=0, atol=1e-6)
    for name in ("used_mib", "free_mib", "reserved_mib", "total_mib"):
        np.testing.assert_allclose(getattr(again, name), getattr(curve, name), rtol=0, atol=1e-6)
    assert [file.name for file in path.parent.iterdir()] == ["curve.csv.gz"]


def test_columns_carry_their_units(tmp_path: Path) -> None:
    path = tmp_path / "curve.csv.gz"
    write_curve(path, random_curve(1, 500.0), origin_s=54321.0)
    header, row = gzip.decompress(path.read_bytes()).decode().splitlines()
    assert header == "before_s,after_s,used_mib,free_mib,reserved_mib,total_mib,api"
    assert row.endswith(",500.000000,24576.000000,v2")


def test_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "curve.csv.gz"
    write_curve(path, random_curve(100, 500.0), origin_s=0)
    whole = path.read_bytes()
    header = b"before_s,after_s,used_mib,free_mib,reserved_mib,total_mib,api\n"
    for content in (
        whole[:-9],
        whole[:200] + b"\0\0\0" + whole[203:],
        b"not gzip",
        gzip.compress(header + b"1,2,3\n"),
        gzip.compress(b"time,memory\n1,2\n"),
        None,
    ):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(EvaluationError, match=r"curve\.csv\.gz: "):
            read_curve(path)
