"""What batches of one machine share with each other: nothing."""

from __future__ import annotations

import importlib
import tempfile
import warnings
from pathlib import Path

import pytest

from evaluation.batch.cluster import embedded
from evaluation.batch.trust import for_this_run


def test_two_batches_beside_each_other_have_ports_of_their_own() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with embedded(for_this_run()) as first, embedded(for_this_run()) as second:
            assert first != second


def test_nothing_is_imported_from_where_others_may_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """dask imports from a folder of its own beneath one in /tmp, whoever has made that."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    prepared = tmp_path / "dask-scratch-space"
    prepared.mkdir()
    prepared.chmod(0o777)  # another user's, who may replace what is in there
    with embedded(for_this_run()):
        for made in [path for path in prepared.iterdir() if path.is_dir()]:
            made.rename(tmp_path / made.name)
            made.mkdir()
            (made / "of_another_user.py").touch()
        importlib.invalidate_caches()
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("of_another_user")
