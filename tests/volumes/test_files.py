"""volumes.files: a file is there as it was, or complete, and nothing is left beside it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from volumes.files import replacing, sha256, write_whole


@pytest.mark.parametrize(
    ("content", "found"), [("\u00e9\n", b"\xc3\xa9\n"), (b"\0\r\n", b"\0\r\n")]
)
def test_what_is_written_is_there_with_its_folders(
    content: str | bytes, found: bytes, tmp_path: Path
) -> None:
    write_whole(tmp_path / "new" / "a.txt", content)
    assert (tmp_path / "new" / "a.txt").read_bytes() == found


def test_it_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    sync, replace = os.fsync, Path.replace

    def synced(file: int) -> None:
        events.append("disk")
        sync(file)

    def replaced(part: Path, path: Path) -> Path:
        events.append("name")
        return replace(part, path)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    write_whole(tmp_path / "a", "new")
    assert events == ["disk", "name"]


@pytest.mark.parametrize("fault", [OSError, KeyboardInterrupt])
def test_a_file_is_as_it_was_until_it_is_complete(
    fault: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise fault

    write_whole(tmp_path / "a", "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(fault):
        write_whole(tmp_path / "a", "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]


def test_the_part_lies_beside_the_file_and_looks_like_none(tmp_path: Path) -> None:
    with replacing(tmp_path / "scan.nii.gz") as part:
        part.write_bytes(b"")
        assert part.parent == tmp_path
        assert part.name.startswith(".")
        assert part.suffix != ".gz"
        assert not (tmp_path / "scan.nii.gz").exists()


def test_the_digest_is_that_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert sha256(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()
