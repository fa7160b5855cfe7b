"""The zip of nnUNetv2_export_model_to_zip as it is, and zips that want more than to be unpacked."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.model import load_model
from tests.nnunet_models import plans
from tests.training.trained_folder import write_trained
from training.archive import unpacked
from training.errors import TrainingError
from training.export import main

FULL = "Dataset001_X/nnUNetTrainer__nnUNetPlans__3d_fullres"
LOW = "Dataset001_X/nnUNetTrainer__nnUNetPlans__3d_lowres"


def zipped(file: Path, folders: dict[str, Path], **more: bytes) -> Path:
    """What nnU-Net packs: the folders under their names in nnUNet_results, and ``more``."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, folder in folders.items():
            for source in sorted(f for f in folder.rglob("*") if f.is_file()):
                # Not write(), which takes dots out of names.
                archive.writestr(f"{name}/{source.relative_to(folder)}", source.read_bytes())
            archive.writestr(f"{name}/fold_0/progress.png", b"a picture")
        archive.writestr("Dataset001_X/inference_information.json", b"{}")
        for name, content in more.items():
            archive.writestr(name, content)
    return file


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folders = {name: tmp_path / name.rpartition("__")[2] for name in (FULL, LOW)}
    write_trained(folders[FULL], folds=("0", "1"))
    write_trained(folders[LOW], plans(name="3d_lowres"), configuration="3d_lowres")
    cross_validation = folders[FULL] / "crossval_results_folds_0_1"
    cross_validation.mkdir()
    (cross_validation / "postprocessing.json").write_text(
        '{"postprocessing_fns": ["remove_all_but_largest_component_from_segmentation"],'
        ' "postprocessing_kwargs": [{"labels_or_regions": [1]}]}'
    )
    return zipped(tmp_path / "model.zip", folders)


@pytest.mark.parametrize(("name", "members"), [(FULL, 2), (LOW, 1)])
def test_one_of_several_is_exported(name: str, members: int, archive: Path, output: Path) -> None:
    assert main([str(archive / name), "--output", str(output)]) == 0
    config = load_model(output).config
    assert (config.configuration, len(config.members)) == (name.rpartition("__")[2], members)
    assert config.members[0].source.startswith(f"{name.rpartition('/')[2]}/fold_0/checkpoint_final")
    assert (config.postprocessing is not None) == (name == FULL)


def test_the_only_one_needs_no_name(trained: Path, output: Path) -> None:
    archive = zipped(trained.with_name("one.zip"), {FULL: trained})
    assert main([str(archive), "--output", str(output)]) == 0
    assert load_model(output).config.configuration == "3d_fullres"


def test_one_without_a_folder_in_it(trained: Path, output: Path) -> None:
    """As people pack it themselves."""
    archive = trained.with_name("one.zip")
    with zipfile.ZipFile(archive, "w") as opened:
        for source in (f for f in trained.rglob("*") if f.is_file()):
            opened.write(source, source.relative_to(trained))
    assert main([str(archive), "--output", str(output)]) == 0
    assert load_model(output).config.members[0].source.startswith("one/fold_0/")


def refusal(path: Path) -> str:
    with pytest.raises(TrainingError) as caught, unpacked(path):
        pass
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) <= 300 + len(str(path))
    return message


@pytest.mark.parametrize("wanted", ["", "Dataset001_X/missing"])
def test_the_choice_is_named(wanted: str, archive: Path) -> None:
    expected = f"{archive}: add which trained folder in it is meant ({FULL}, {LOW})"
    assert refusal(archive / wanted) == expected


def _bomb(archive: Path) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("x/plans.json", b"{}")
        opened.writestr("x/fold_0/checkpoint_final.pth", bytes(2**28))


def _truncated(archive: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:-1000])


def _flipped(archive: Path) -> None:
    """Bytes of the largest file in it, so that its checksum does not fit."""
    raw = bytearray(archive.read_bytes())
    raw[len(raw) // 3 : len(raw) // 3 + 8] = bytes(8)
    archive.write_bytes(raw)


def _encrypted(archive: Path) -> None:
    raw = archive.read_bytes()
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        for start in [i for i in range(len(raw)) if raw.startswith(signature, i)]:
            raw = raw[: start + flags] + b"\x01" + raw[start + flags + 1 :]
    archive.write_bytes(raw)


HOSTILE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a bomb": (_bomb, "would unpack to 268435458 bytes, over 20 times its size"),
    "truncated": (_truncated, "cannot be unpacked"),
    "damaged": (_flipped, "cannot be unpacked"),
    "encrypted": (_encrypted, "cannot be unpacked"),
    "no zip": (lambda f: f.write_text("hello"), "cannot be unpacked"),
    "nothing of nnU-Net's": (
        lambda f: zipped(f, {}, **{"a/b.txt": b""}),
        "add which trained folder in it is meant (there is none)",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives(name: str, trained: Path) -> None:
    spoil, expected = HOSTILE[name]
    archive = zipped(trained.with_name("one.zip"), {FULL: trained})
    spoil(archive)
    assert expected in refusal(archive)


@pytest.mark.parametrize("folder", ["../../escaped", "/escaped", "a/../../b"])
def test_nothing_is_written_outside(
    folder: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    archive = zipped(tmp_path / "one.zip", {folder: trained})
    before = set(tmp_path.rglob("*"))
    with unpacked(archive) as found:
        assert (found / "fold_0" / "checkpoint_final.pth").is_file()
        written = set(tmp_path.rglob("*")) - before
        assert all(f.is_relative_to(tmp_path / "temporary") for f in written)
    assert set(tmp_path.rglob("*")) == before
    assert not Path("/escaped").exists()


@pytest.mark.parametrize("folder", ["..", "a/.."])
def test_a_folder_above_is_refused(folder: str, trained: Path) -> None:
    archive = zipped(trained.with_name("one.zip"), {folder: trained})
    assert "add which trained folder in it is meant" in refusal(archive)
