"""The tables and the curve of a model's card, from results written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.training.test_ellipsoid import write_ellipsoid
from training.card import card, main
from training.ellipsoid import best
from training.errors import TrainingError
from training.validation import summary

COLUMNS = ("case", "status", "dsc", "nsd", "lesion_f1", "reference_ml", "predicted_ml")
DSC = {"a_crop0": 0.8, "a_crop1": 0.6, "b_crop0": 0.4}


def row(case: str, dsc: float, ml: float = 12.0) -> dict[str, Any]:
    return dict(zip(COLUMNS, (case, "ok", dsc, 0.5, None if ml == 0 else 1.0, ml, ml), strict=True))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """What training.train leaves: three crops of two patients and a healthy box are held out."""
    labels = tmp_path / "results" / "validation" / "labels"
    labels.mkdir(parents=True)
    for case, axis in zip(DSC, (20, 30, 40), strict=True):
        axes = (axis, axis, axis)
        write_ellipsoid(labels / f"{case}.nii.gz", (50, 50, 50), (1.0, 1.0, 1.0), axes)
    rows = [*(row(case, dsc) for case, dsc in DSC.items()), row("b_box0", 1.0, 0.0)]
    member = {
        "configuration": "3d_fullres",
        "epochs": 3,
        "iterations": 40,
        "batch_size": 2,
        "parameters": 4_139_400,
        "seconds_in_epochs": 3600,
        "device": "CPU",
        "losses": [0.1, -0.2, -0.4],
        "validation_losses": [0.1, -0.1, -0.2],
        "pseudo_dice": [0.0, 0.5, 0.6],
    }
    content = {
        "recipe": "tiny",
        "model": str(tmp_path / "weights" / "tiny"),
        "title": "A tiny network",
        "fold": "0",
        "split_seed": 5,
        "members": [member],
        "validation": summary(rows),
        "patients": {case["case"]: case["case"][0] for case in rows},
        "cases": rows,
    }
    (tmp_path / "results" / "summary.json").write_text(json.dumps(content))
    return tmp_path / "results"


def text_of(results: Path, others: dict[str, Path]) -> str:
    return card(results, json.loads((results / "summary.json").read_text()), others)


def test_the_model_stands_beside_the_ellipsoid(results: Path) -> None:
    lines = text_of(results, {}).splitlines()
    labels = results / "validation" / "labels"
    ellipsoid = best([labels / f"{case}.nii.gz" for case in DSC])
    first = (ellipsoid.dsc[0] + ellipsoid.dsc[1]) / 2
    assert f"| a | 2 | 0.700 | {first:.3f} |" in lines
    assert f"| b | 1 | 0.400 | {ellipsoid.dsc[2]:.3f} |" in lines
    assert f"| all | 3 | 0.600 | {ellipsoid.mean:.3f} |" in lines
    assert f"Difference: {0.6 - ellipsoid.mean:+.3f}." in lines


def test_other_scans_have_a_table_each(results: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    values = ("head", "ok", "0.0", "0.0", "", "0.0", "3.25")
    (other / "scores.csv").write_text(f"{','.join(COLUMNS)}\n{','.join(values)}\n")
    lines = text_of(results, {"Without lesions": other}).splitlines()
    start = lines.index("Without lesions:")
    assert lines[start + 4] == "| head | 0.0 | 3.2 | 0.000 | 0.000 | n/a |"
    with pytest.raises(TrainingError, match=r"holds no scores\.csv"):
        text_of(results, {"Without lesions": tmp_path})


def test_files_are_written_to_the_model_unless_said_otherwise(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "weights" / "tiny"
    assert main([str(results)]) == 1
    assert "the model is not there any more" in capsys.readouterr().err
    model.mkdir(parents=True)
    assert main([str(results)]) == 0
    assert f"python -m app --model {model}" in capsys.readouterr().out
    assert main([str(results), "--output", str(tmp_path / "other")]) == 0
    for output in (model, tmp_path / "other"):
        assert (output / "results.md").read_text() == text_of(results, {})
        assert (output / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_folder_that_is_no_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 1
    assert "give training.train's --output" in capsys.readouterr().err
