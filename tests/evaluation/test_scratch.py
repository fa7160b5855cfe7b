"""Folders that no other user can enter, which a killed program does not leave for good; locks."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from evaluation import scratch
from evaluation.errors import EvaluationError
from tests import engine


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"flare-{os.getuid()}"


def test_the_folder_is_this_users_alone_whatever_the_umask(temporary: Path) -> None:
    before = os.umask(0)
    try:
        assert scratch.private() == scratch.private() == temporary
    finally:
        os.umask(before)
    assert stat.S_IMODE(temporary.stat().st_mode) == 0o700


@pytest.mark.parametrize("kind", ["open", "link", "file", "foreign"])
def test_a_folder_that_another_user_can_enter_or_has_made_is_refused(
    temporary: Path, kind: str
) -> None:
    match kind:
        case "open":
            temporary.mkdir()
            temporary.chmod(0o701)
        case "link":
            (temporary.parent / "own").mkdir(mode=0o700)
            temporary.symlink_to("own")
        case "file":
            temporary.touch(0o700)
        case "foreign":
            if os.geteuid() != 0:
                pytest.skip("only root can give a folder away")
            temporary.mkdir(mode=0o700)
            os.chown(temporary, 65534, 65534)
    with pytest.raises(EvaluationError, match=r"not a folder of this user alone.*TMPDIR"):
        scratch.private()


def test_a_folder_is_there_for_a_block_and_is_private(tmp_path: Path) -> None:
    with scratch.folder(tmp_path) as one, scratch.folder(tmp_path) as other:
        assert one != other
        (one / "left").mkdir()
        assert stat.S_IMODE(one.stat().st_mode) == 0o700
        with scratch.folder(tmp_path):  # which clears what is nobody's
            assert (one / "left").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["runs.lock"]


def test_what_a_killed_program_left_is_removed_by_the_next(tmp_path: Path) -> None:
    script = (
        "import pathlib, time; from evaluation import scratch\n"
        f"with scratch.folder(pathlib.Path({str(tmp_path)!r})) as folder:\n"
        "    (folder / 'left').touch(); print(folder, flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=engine.ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    left = Path(process.stdout.readline().strip())
    process.kill()
    process.wait()
    assert (left / "left").exists()
    with scratch.folder(tmp_path):
        assert not left.exists()


def test_who_waits_may_give_up(tmp_path: Path) -> None:
    deadline_s = time.monotonic() + 0.3

    def check() -> None:
        if time.monotonic() > deadline_s:
            raise EvaluationError("enough")

    path = tmp_path / "a.lock"
    with (
        scratch.lock(path),
        pytest.raises(EvaluationError, match="enough"),
        scratch.lock(path, check),
    ):
        pass
