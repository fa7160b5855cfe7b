"""nnU-Net's postprocessing.pkl and .json, and which of them an exported model gets."""

from __future__ import annotations

import json
import os
import pickle
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from app.model import load_model
from tests.nnunet_models import dataset, plans
from tests.training.test_checkpoint import Malicious
from tests.training.trained_folder import NETWORK, write_trained
from training.errors import TrainingError
from training.export import export, main
from training.postprocessing import read_postprocessing

NAME = "remove_all_but_largest_component_from_segmentation"
MODULE = "nnunetv2.postprocessing.remove_connected_components"
CROSS_VALIDATION = "crossval_results_folds"


@pytest.fixture(autouse=True)
def _nnunet() -> Iterator[None]:
    """A module that has nnU-Net's function by its name, so that it can be pickled."""
    module: Any = ModuleType(MODULE)

    def function(segmentation: object, labels_or_regions: object) -> object:
        raise AssertionError("it was run")

    function.__module__, function.__qualname__, function.__name__ = MODULE, NAME, NAME
    setattr(module, NAME, function)
    package, subpackage = MODULE.split(".")[:2]
    made = {package: module, f"{package}.{subpackage}": module, MODULE: module}
    sys.modules |= made
    yield
    for name in made:
        del sys.modules[name]


def write(file: Path, *labels: Any, protocol: int | None = None, **more: Any) -> Path:
    """nnU-Net's pickle of a rule for each of ``labels``, or its twin in JSON, as the name asks."""
    function = getattr(sys.modules[MODULE], NAME)
    arguments = [{"labels_or_regions": label, **more} for label in labels]
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".pkl":
        file.write_bytes(pickle.dumps(([function] * len(labels), arguments), protocol))
    else:
        content = {"postprocessing_fns": [NAME] * len(labels), "postprocessing_kwargs": arguments}
        file.write_text(json.dumps(content, default=int))
    return file


ONE, TWO = np.int64(1), np.int64(2)


@pytest.mark.parametrize("suffix", ["pkl", "json"])
@pytest.mark.parametrize(
    ("labels", "groups"),
    [
        (([ONE, TWO], ONE, TWO), ((1, 2), (1,), (2,))),
        (([ONE],), ((1,),)),
        ((3,), ((3,),)),
        (((1, 2),), ((1, 2),)),  # a region
        (([(1, 2, 3), (2, 3), 3],), ((1, 2, 3),)),
    ],
)
def test_rules(labels: Any, groups: Any, suffix: str, tmp_path: Path) -> None:
    file = write(tmp_path / "ensemble" / f"postprocessing.{suffix}", *labels)
    found = read_postprocessing(file)
    assert found is not None
    assert (found.keep_largest, found.source) == (groups, f"ensemble/postprocessing.{suffix}")


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("number", [np.uint8(200), np.int32(200), np.array(200, ">i4")[()]])
def test_numbers_of_numpy(number: Any, protocol: int, tmp_path: Path) -> None:
    file = write(tmp_path / "postprocessing.pkl", number, protocol=protocol)
    found = read_postprocessing(file)
    assert found is not None
    assert found.keep_largest == ((200,),)


def test_nothing_helped(tmp_path: Path) -> None:
    assert read_postprocessing(write(tmp_path / "postprocessing.pkl")) is None


def refusal(file: Path) -> str:
    with pytest.raises(TrainingError) as caught:
        read_postprocessing(file)
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("place", [lambda e: e, lambda e: ([e], [{}]), lambda e: ([], [{"a": e}])])
def test_code_is_refused_and_not_run(place: Any, tmp_path: Path) -> None:
    trace, file = tmp_path / "it_ran", tmp_path / "postprocessing.pkl"
    file.write_bytes(pickle.dumps(place(Malicious(os.system, f"touch '{trace}'"))))
    assert f"it would run {os.system.__module__}.system" in refusal(file)
    assert not trace.exists()
    pickle.loads(file.read_bytes())
    assert trace.exists()  # so the file was live


BAD: dict[str, tuple[Any, str]] = {
    "another function": (([np.sum], [{}]), "it would run numpy.sum"),
    "a name for a function": ((["drop"], [{}]), "asks for more than remove_all_but_largest"),
    "no labels": (([NAME], [{}]), "is not nnU-Net's"),
    "one too few": (([NAME, NAME], [{"labels_or_regions": 1}]), "is not nnU-Net's"),
    "deeper lists": (([NAME], [{"labels_or_regions": [[[1]]]}]), "is not nnU-Net's"),
    "much text": (([NAME], [{"labels_or_regions": "9" * 5000}]), "is not nnU-Net's"),
    "text for a label": (([NAME], [{"labels_or_regions": "one"}]), "is not nnU-Net's"),
    "a fraction": (([NAME], [{"labels_or_regions": np.float32(1)}]), "NumPy's type f4"),
    "another background": (
        ([NAME], [{"labels_or_regions": 1, "background_label": 2}]),
        "background_label is 2, expected 0",
    ),
    "no pair": ([1, 2, 3], "is not loaded (too many values"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_nnunet_s_is_refused(name: str, tmp_path: Path) -> None:
    content, expected = BAD[name]
    (tmp_path / "postprocessing.pkl").write_bytes(pickle.dumps(content))
    message = refusal(tmp_path / "postprocessing.pkl")
    assert expected in message
    assert len(message) < 300 + len(str(tmp_path))
    assert message.endswith("or leave it out with --postprocessing none")


def test_damaged_bytes(tmp_path: Path) -> None:
    file = write(tmp_path / "postprocessing.pkl", [ONE, TWO], ONE)
    raw = np.frombuffer(file.read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    messages = []
    for _ in range(300):
        damaged = raw.copy()
        damaged[rng.integers(len(raw), size=3)] = rng.integers(256, size=3)
        file.write_bytes(damaged.tobytes())
        try:
            read_postprocessing(file)
        except TrainingError as error:
            messages.append(str(error))
    assert len(messages) > 100
    assert not any("\n" in message for message in messages)


@pytest.mark.parametrize(("content", "expected"), [("{}", "has no 'postprocessing_fns'"), ("", "")])
def test_json_that_is_not_nnunet_s(content: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "postprocessing.json").write_text(content)
    assert expected in refusal(tmp_path / "postprocessing.json")


def exported(folders: list[Path], output: Path, **options: Any) -> tuple[Any, list[str]]:
    warnings = export(folders, output, **options)
    found = load_model(output).config.postprocessing
    return found and found.keep_largest, warnings


@pytest.mark.parametrize("suffix", ["pkl", "json"])
@pytest.mark.parametrize(("there", "folds"), [("0_1", None), ("0_1", ["1", "0"]), ("1", ["1"])])
def test_that_of_the_same_folds_is_taken(
    there: str, folds: Any, suffix: str, tmp_path: Path, output: Path
) -> None:
    trained = tmp_path / "trained"
    write_trained(trained, folds=("0", "1"))
    write(trained / f"{CROSS_VALIDATION}_{there}" / f"postprocessing.{suffix}", 1)
    write(trained / f"{CROSS_VALIDATION}_0_1_2" / f"postprocessing.{suffix}", (1, 2))
    assert exported([trained], output, folds=folds) == (((1,),), [])


def test_that_of_others_is_named_and_taken_when_asked(tmp_path: Path, output: Path) -> None:
    trained = tmp_path / "trained"
    write_trained(trained, folds=("0",))
    for suffix in ("json", "pkl"):
        file = write(trained / f"{CROSS_VALIDATION}_0_1" / f"postprocessing.{suffix}", 1)
    found, (warning,) = exported([trained], output)
    assert found is None
    assert warning.startswith(f"{file}: is nnU-Net's postprocessing of other members than those")
    given = exported([trained], output.with_name("given"), postprocessing=str(file))
    assert given == (((1,),), [])
    assert exported([trained], output.with_name("no"), postprocessing="none") == (None, [])


def test_an_ensemble_of_two_trainings_has_none_of_its_own(tmp_path: Path, output: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for seed, folder in enumerate(folders):
        write_trained(folder, seed=seed)
        write(folder / f"{CROSS_VALIDATION}_0" / "postprocessing.pkl", 1)
    found, warnings = exported(folders, output)
    assert found is None
    assert len(warnings) == 2


def test_one_that_helps_nothing_is_not_spoken_of(trained: Path, output: Path) -> None:
    write(trained / f"{CROSS_VALIDATION}_0_1" / "postprocessing.pkl")
    assert exported([trained], output) == (None, [])


def test_it_is_said(tmp_path: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = {"background": 0, "organ": 1, "lesion": 2}
    network = replace(NETWORK, heads=3)
    write_trained(tmp_path / "trained", plans(), dataset(labels), network=network)
    file = write(tmp_path / "trained" / f"{CROSS_VALIDATION}_0" / "postprocessing.pkl", (1, 2), 2)
    assert main([str(tmp_path / "trained"), "--output", str(output)]) == 0
    said = capsys.readouterr().out.splitlines()[0]
    assert said == (
        f"{output}: only the largest component of label 1 and 2, then of 2 "
        f"({file.parent.name}/{file.name}) stays in its masks, as in nnU-Net"
    )
