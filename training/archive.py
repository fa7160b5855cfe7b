"""The zip of `nnUNetv2_export_model_to_zip`: a trained folder in it, unpacked for a while."""

from __future__ import annotations

import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from training.errors import TrainingError

# What is needed of a trained folder; its own name comes before.
_NEEDED = re.compile(
    r"(?:(?P<folder>.*?)/)?(?P<file>plans\.json|dataset\.json|fold_[^/]+/[^/]+\.pth"
    r"|(?:crossval_results_[^/]+/)?postprocessing\.(?:pkl|json))"
)
_MOST_RATIO, _ALWAYS_BYTES = 20, 2**26  # weights hardly shrink
_REMEDY = (
    "give what nnUNetv2_export_model_to_zip wrote, or the folder that nnU-Net's training wrote"
)

_Files = list[tuple[zipfile.ZipInfo, str]]  # and their names in the folder


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """The trained folder at a path: that itself, or unpacked from ZIP or ZIP/FOLDER until the end.

    Nothing is written outside of a temporary folder, and not much more than the archive holds.
    Raises TrainingError.
    """
    archive = next((p for p in (path, *path.parents) if p.is_file()), None)
    if archive is None:
        yield path
        return
    with tempfile.TemporaryDirectory() as temporary:
        # Messages name files in it: the archive's name tells where they come from.
        target = Path(temporary) / archive.name
        yield _unpack(archive, path.relative_to(archive).as_posix(), target)


def _unpack(archive: Path, wanted: str, target: Path) -> Path:
    try:
        with zipfile.ZipFile(archive) as opened:
            name, files = _chosen(archive, opened, wanted)
            size, most = sum(info.file_size for info, _ in files), archive.stat().st_size
            if size > most * _MOST_RATIO + _ALWAYS_BYTES:
                raise TrainingError(
                    f"{archive}: would unpack to {size} bytes, over {_MOST_RATIO} times its size; "
                    f"{_REMEDY}"
                )
            for info, file in files:
                (target / name / file).parent.mkdir(parents=True, exist_ok=True)
                with opened.open(info) as source, (target / name / file).open("wb") as copy:
                    shutil.copyfileobj(source, copy)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise TrainingError(f"{archive}: cannot be unpacked ({error!s:.60}); {_REMEDY}") from None
    return target / name


def _chosen(archive: Path, opened: zipfile.ZipFile, wanted: str) -> tuple[str, _Files]:
    """The name of the wanted trained folder, or of the only one, and its files."""
    folders: dict[str, _Files] = {}
    for info in opened.infolist():
        found = _NEEDED.fullmatch(info.filename)
        if found:
            folders.setdefault(found["folder"] or ".", []).append((info, found["file"]))
    trained = [f for f, files in folders.items() if "plans.json" in [name for _, name in files]]
    if wanted == "." and len(trained) == 1:
        (wanted,) = trained
    name = PurePosixPath(wanted).name or archive.stem
    if wanted not in trained or name == "..":
        there = ", ".join(sorted(trained)) or "there is none"
        raise TrainingError(f"{archive}: add which trained folder in it is meant ({there})"[:300])
    return name, folders[wanted]
