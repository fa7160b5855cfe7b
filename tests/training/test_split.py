from __future__ import annotations

import pytest

from training.errors import TrainingError
from training.split import folds, patients

CASES = [
    f"site{site}-p{patient:02d}-t{scan}" for site in "AB" for patient in range(6) for scan in "12"
]
PATTERN = r"(site.-p\d+)-t\d"


def test_the_patient_is_the_group() -> None:
    found = patients(CASES, PATTERN)
    assert found["siteA-p03-t1"] == found["siteA-p03-t2"] == "siteA-p03"
    assert len(set(found.values())) == 12
    assert patients(["a", "b"], None) == {"a": "a", "b": "b"}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("(", "--patient-pattern"),
        (r"site.*", "has 0 groups"),
        (r"(site)(.*)", "has 2 groups"),
        (r"(p\d+)", "finds no patient in the name siteA-p00-t1"),
        (r"()site.*", "finds no patient"),
    ],
)
def test_patterns_that_do_not_work(pattern: str, expected: str) -> None:
    with pytest.raises(TrainingError) as caught:
        patients(CASES, pattern)
    assert expected in str(caught.value)


def test_no_patient_is_on_both_sides() -> None:
    patient_of = patients(CASES, PATTERN)
    split = folds(patient_of, [], seed=1)
    assert len(split) == 5
    for fold in split:
        assert not {patient_of[c] for c in fold["train"]} & {patient_of[c] for c in fold["val"]}
        assert sorted(fold["train"] + fold["val"]) == sorted(CASES)
    assert sorted(c for fold in split for c in fold["val"]) == sorted(CASES)


def test_the_seed_decides_and_nothing_else() -> None:
    patient_of = patients(CASES, PATTERN)
    backwards = dict(reversed(patient_of.items()))
    assert folds(patient_of, [], seed=1) == folds(backwards, [], seed=1)
    assert folds(patient_of, [], seed=1) != folds(patient_of, [], seed=2)
    # written down, so that another version that splits otherwise is noticed
    assert folds({c: c for c in "abcdef"}, ["e", "f"], seed=0) == KNOWN


def test_healthy_patients_are_shared_out() -> None:
    patient_of = {f"ill{n}": f"ill{n}" for n in range(10)} | {f"ok{n}": f"ok{n}" for n in range(5)}
    healthy = [f"ok{n}" for n in range(5)]
    for fold in folds(patient_of, healthy, seed=3):
        assert sum(case in healthy for case in fold["val"]) == 1
        assert len(fold["val"]) == 3


def test_few_patients_give_few_folds() -> None:
    assert len(folds({"a": "a", "b": "b", "c": "c"}, [], seed=0)) == 3
    with pytest.raises(TrainingError, match="patients with lesions: 1; two at least"):
        folds({"a": "a", "b": "b"}, ["b"], seed=0)
    with pytest.raises(TrainingError, match="patients with lesions: 1"):
        folds({"a1": "a", "a2": "a"}, [], seed=0)


KNOWN = [
    {"train": ["a", "b", "d", "f"], "val": ["c", "e"]},
    {"train": ["b", "c", "d", "e"], "val": ["a", "f"]},
    {"train": ["a", "c", "d", "e", "f"], "val": ["b"]},
    {"train": ["a", "b", "c", "e", "f"], "val": ["d"]},
]


def test_some_patients_are_trained_on_only() -> None:
    patient_of = patients(CASES, PATTERN)
    fixed = ["siteA-p03", "siteB-p00"]
    split = folds(patient_of, [], seed=1, train_only=fixed)
    held_out = [patient_of[c] for fold in split for c in fold["val"]]
    assert sorted(set(held_out)) == sorted(set(patient_of.values()) - set(fixed))
    for fold in split:
        assert set(fixed) <= {patient_of[c] for c in fold["train"]}
        assert sorted(fold["train"] + fold["val"]) == sorted(CASES)
    with pytest.raises(TrainingError, match="--train-only siteC: no case is of that patient"):
        folds(patient_of, [], seed=1, train_only=["siteA-p03", "siteC"])
    with pytest.raises(TrainingError, match="two at least"):
        folds({c: c for c in "abc"}, [], seed=1, train_only=["a", "b"])
