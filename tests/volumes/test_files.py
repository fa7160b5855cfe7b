"""volumes.files: a file is there as it was, or complete, and nothing is left beside it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.nnunet_models import ROOT
from volumes.files import STRANGERS_JSON_BYTES, read_json, replacing, sha256, write_whole


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


def killed_while_it_writes(path: Path) -> None:
    """Leave what a process leaves that is killed in the middle of a file."""
    script = (
        "import os, signal, sys; from pathlib import Path; from volumes.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as part:\n"
        "    part.write_bytes(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", script, path], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    "name", ["a", "n" * 255, "\u00e9" * 127, "two\nlines", os.fsdecode(b"\xff")]
)
def test_what_a_killed_process_leaves_is_removed_by_the_next(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"old")
    (tmp_path / ".mine.unfinished").write_bytes(b"a user's")
    killed_while_it_writes(tmp_path / name)
    assert (tmp_path / name).read_bytes() == b"old"
    assert len(names(tmp_path)) == 3
    write_whole(tmp_path / "other", b"")
    assert names(tmp_path) == sorted([".mine.unfinished", name, "other"])


def test_what_is_being_written_is_left_to_its_writer(tmp_path: Path) -> None:
    with replacing(tmp_path / "a") as part, replacing(tmp_path / "b") as other:
        part.write_bytes(b"1")
        other.write_bytes(b"2")
        script = "import sys; from pathlib import Path; from volumes.files import write_whole\n"
        script += "write_whole(Path(sys.argv[1]), b'3')"
        subprocess.run([sys.executable, "-c", script, tmp_path / "c"], cwd=ROOT, check=True)
    assert [(tmp_path / name).read_bytes() for name in names(tmp_path)] == [b"1", b"2", b"3"]


def test_a_part_that_is_removed_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock
    removed: list[Path] = []

    def late(file: int, operation: int) -> None:
        if not removed:
            removed.extend(tmp_path.iterdir())
            removed[0].unlink()
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    write_whole(tmp_path / "a", b"1")
    assert len(removed) == 1
    assert (tmp_path / "a").read_bytes() == b"1"


@pytest.mark.parametrize("mask", [0o022, 0o027])
def test_who_may_read_it_is_as_the_user_has_it(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        write_whole(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~mask


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


def test_no_more_json_is_read_than_becomes_some_memory(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(b"[" + b"[]," * (2**23 // 3) + b"[]]")
    with pytest.raises(ValueError, match="larger than 8388608 bytes"):
        read_json(file, STRANGERS_JSON_BYTES)
    file.write_bytes(b"[" * 10**6)
    with pytest.raises(ValueError, match="nested too deeply"):
        read_json(file)


@pytest.mark.parametrize("read", [read_json, sha256])
def test_nobody_waits_for_a_pipe(read: Callable[[Path], object], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        read(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        read(Path("/dev/zero"))
