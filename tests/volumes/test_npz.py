"""volumes.npz: what NumPy reads is what was given, part by part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from volumes.npz import writing

WHOLE = np.random.default_rng(0).random((3, 11, 4, 5))


@pytest.mark.parametrize("cuts", [(), (1,), (4, 5, 10)])
def test_parts_become_one_array(cuts: tuple[int, ...], tmp_path: Path) -> None:
    file = tmp_path / "X.npz"
    with writing(file, "probabilities", WHOLE.shape, np.dtype(np.float16)) as add:
        for part in np.split(WHOLE, cuts, axis=1):
            add(part)
    with np.load(file) as read:
        assert list(read) == ["probabilities"]
        assert read["probabilities"].dtype == np.float16
        assert np.array_equal(read["probabilities"], WHOLE.astype(np.float16))
    assert [f.name for f in tmp_path.iterdir()] == ["X.npz"]


def test_what_fails_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    file = tmp_path / "X.npz"
    file.write_text("before")
    half = WHOLE[:, :3].astype(object)
    half[0, 0, 0, 0] = "no number"
    with (
        pytest.raises(ValueError, match="no number"),
        writing(file, "probabilities", WHOLE.shape, np.dtype(np.float16)) as add,
    ):
        add(half)
    assert file.read_text() == "before"
    assert [f.name for f in tmp_path.iterdir()] == ["X.npz"]
