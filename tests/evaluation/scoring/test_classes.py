"""The challenges' scoring against the organisers' loops, restated with DeepMind's functions."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from surface_distance import metrics as deepmind  # type: ignore[import-untyped]

from evaluation.scoring.classes import score
from evaluation.scoring.rules import ScoringRules
from evaluation.scoring.surface import surface_dice
from tests.evaluation import challenges

pytestmark = pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")

Labels = NDArray[Any]
Pair = tuple[float, float]
FLARE23, FLARE24 = challenges.FLARE23.scoring, challenges.FLARE24.scoring
SPACING_ZYX = tuple(float(np.float32(step)) for step in (2.5, 0.78125, 0.9))
TOLERANCES = {
    **{"Liver": 5, "RK": 3, "Spleen": 3, "Pancreas": 5, "Aorta": 2, "IVC": 2, "RAG": 2, "LAG": 2},
    **{"Gallbladder": 2, "Esophagus": 3, "Stomach": 5, "Duodenum": 7, "LK": 3, "Lesion": 2},
}


def agreement(gt: Labels, seg: Labels, spacing: tuple[float, ...], tolerance: float) -> Pair:
    dsc = deepmind.compute_dice_coefficient(gt, seg)
    if dsc < 0.2:
        nsd = 0
    else:
        distances = deepmind.compute_surface_distances(gt, seg, spacing)
        nsd = deepmind.compute_surface_dice_at_tolerance(distances, tolerance)
    return round(dsc, 4), round(nsd, 4)


def flare24_script(segmentation: Labels, truth: Labels, case_spacing: tuple[float, ...]) -> Pair:
    """What T1_FLARE24_DSC_NSD_Eval.py does; arrays are (x, y, z), as nibabel's."""
    gt_data, seg_data = np.uint8(truth), np.uint8(segmentation)
    if np.max(seg_data) > 1:
        return 0, 0
    if np.sum(gt_data) == 0 and np.sum(seg_data) == 0:
        return 1, 1
    if np.sum(gt_data) == 0 or np.sum(seg_data) == 0:
        return 0, 0
    return agreement(gt_data.astype(bool), seg_data.astype(bool), case_spacing, 2)


def flare23_script(segmentation: Labels, truth: Labels, spacing: tuple[float, ...]) -> list[Pair]:
    """What FLARE23_DSC_NSD_Eval.py does; arrays are (x, y, z), as nibabel's."""
    reference, submission = truth.astype(np.int8), segmentation.astype(np.int8)
    pairs: list[Pair] = []
    for i, organ in enumerate(TOLERANCES, 1):
        if np.sum(reference == i) == 0 and np.sum(submission == i) == 0:
            pairs.append((1, 1))
        elif np.sum(reference == i) == 0 or np.sum(submission == i) == 0:
            pairs.append((0, 0))
        else:
            gt, seg = reference == i, submission == i
            if i == 5 or i == 6 or i == 10:
                z_index = np.where(gt)[2]
                z_lower, z_upper = np.min(z_index), np.max(z_index)
                gt, seg = gt[:, :, z_lower:z_upper], seg[:, :, z_lower:z_upper]
            pairs.append(agreement(gt, seg, spacing, TOLERANCES[organ]))
    return pairs


def flare24(
    prediction: Labels, reference: Labels, spacing_zyx: tuple[float, ...] = (1, 1, 1)
) -> Pair:
    """The scores, which are those of the script."""
    scores = score(FLARE24, prediction, reference, spacing_zyx)
    assert (scores.dsc, scores.nsd) == scores.classes["Lesion"]
    assert scores.classes["Lesion"] == flare24_script(prediction.T, reference.T, spacing_zyx[::-1])
    return scores.dsc, scores.nsd


def label_maps(seed: int, highest: int) -> tuple[Labels, Labels]:
    """A prediction and a reference (z, y, x) of blobs that differ more or less; some missing."""
    random = np.random.default_rng(seed)
    fields = gaussian_filter(random.standard_normal((2, highest + 1, 17, 20, 19)), (0, 0, 3, 3, 3))
    fields[1] = fields[0] + random.uniform(0, 1) * fields[1]
    maps = [np.argmax(field, axis=0).astype(np.uint8) for field in fields]
    for labels in maps:
        for label in range(highest + 1):
            if random.random() < 0.15:
                labels[labels == label] = 0
    return maps[0], maps[1]


def test_flare23_on_random_label_maps() -> None:
    seen: set[Pair] = set()
    for seed in range(25):
        prediction, reference = label_maps(seed, 14)
        expected = flare23_script(prediction.T, reference.T, SPACING_ZYX[::-1])
        scores = score(FLARE23, prediction, reference, SPACING_ZYX)
        assert list(scores.classes) == list(TOLERANCES)
        assert list(scores.classes.values()) == expected, f"seed {seed}"
        assert (scores.dsc, scores.nsd) == expected[13]
        seen.update(expected)
    assert {(1, 1), (0, 0)} < seen
    assert any(0 < dsc < 0.2 and nsd == 0 for dsc, nsd in seen)
    assert sum(dsc > 0.2 for dsc, _ in seen) > 100


def test_flare24_on_random_label_maps() -> None:
    seen: set[Pair] = set()
    for seed in range(100, 200):
        prediction, reference = label_maps(seed, 1)
        if seed % 10 == 0:
            prediction[0, 0, 0] = 2
        seen.add(flare24(prediction, reference, SPACING_ZYX))
    assert {(1, 1), (0, 0)} < seen
    assert len(seen) > 30


def lesion(values: float, dtype: type = np.float64) -> Labels:
    made: Labels = np.zeros((6, 7, 8), dtype)
    made[2:4, 2:5, 2:6] = values
    return made


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        (lesion(1.9), lesion(1), (1, 1)),
        (lesion(0.9), lesion(1), (0, 0)),
        (lesion(0.9), lesion(0), (1, 1)),
        (lesion(256), lesion(0), (1, 1)),
        (lesion(256, np.int16), lesion(0, np.int16), (1, 1)),
        (lesion(257, np.int16), lesion(1, np.int16), (1, 1)),
        (lesion(-1, np.int16), lesion(1, np.int16), (0, 0)),
        (lesion(2), lesion(0), (0, 0)),
        (lesion(2), lesion(1), (0, 0)),
        (lesion(0), lesion(1), (0, 0)),
        (lesion(1), lesion(0), (0, 0)),
        (lesion(1, np.bool_), lesion(1, np.bool_), (1, 1)),
    ],
)
def test_flare24_casts_before_it_judges(
    prediction: Labels, reference: Labels, expected: Pair
) -> None:
    assert flare24(prediction, reference) == expected


def test_values_that_are_no_numbers_are_cast_without_a_warning() -> None:
    assert score(FLARE24, lesion(np.nan), lesion(0), (1, 1, 1)).dsc in (0.0, 1.0)


def test_flare24_refuses_a_reference_of_another_task() -> None:
    with pytest.raises(ValueError, match="reference holds the label 14: allowed is up to 1"):
        score(FLARE24, lesion(1), lesion(14), (1, 1, 1))


def test_a_low_dsc_takes_the_nsd_with_it() -> None:
    reference, prediction = np.zeros((2, 30, 30, 30), np.uint8)
    reference[5, 5:25, 5:25] = 1
    prediction[6, 5:25, 5:25] = 1
    prediction[5, 5:25, 5] = 1
    assert surface_dice(prediction, reference, (1, 1, 1), 2.0) == 1.0
    assert flare24(prediction, reference) == (round(2 * 20 / 820, 4), 0.0)


def test_a_dsc_of_exactly_the_threshold_keeps_its_nsd() -> None:
    reference, prediction = np.zeros((2, 5, 5, 12), np.uint8)
    reference[2, 2, 0:5] = prediction[2, 2, 4:9] = 1
    dsc, nsd = flare24(prediction, reference)
    assert dsc == 0.2
    assert nsd > 0.5


def test_rounding_is_numpy_s() -> None:
    """A DSC that ends in a 5 at the fifth decimal: Python would round the other way."""
    size = 20000
    reference = np.zeros((2, 100, 200), np.uint8)
    reference[0] = 1
    shares = np.arange(1, size) / size
    differ = np.flatnonzero([round(float(s), 4) != np.round(s, 4) for s in shares] & (shares > 0.2))
    for index in differ[::400]:
        shared = int(index) + 1
        prediction = np.zeros(2 * size, np.uint8)
        prediction[size - shared : 2 * size - shared] = 1
        prediction = prediction.reshape(reference.shape)
        assert flare24(prediction, reference)[0] != round(shared / size, 4)
    assert len(differ) > 400


@pytest.mark.parametrize("label", [5, 6, 10])
def test_vessels_and_esophagus_count_on_labelled_slices_only(label: int) -> None:
    reference, prediction = np.zeros((2, 12, 10, 10), np.uint8)
    reference[3:8, 3:6, 3:6] = label
    prediction[:, 3:6, 3:6] = label
    prediction[7] = 0  # the last labelled slice is left out
    name = FLARE23.classes[label - 1].name
    assert score(FLARE23, prediction, reference, (5, 1, 1)).classes[name] == (1.0, 1.0)
    prediction[3] = 0  # the first is not
    dsc, nsd = score(FLARE23, prediction, reference, (5, 1, 1)).classes[name]
    assert dsc == round(2 * 3 / 7, 4)
    assert 0 < nsd < 1
    reference[reference > 0] = prediction[prediction > 0] = 1
    assert score(FLARE23, prediction, reference, (5, 1, 1)).classes["Liver"][0] < dsc


def test_a_prediction_beside_the_labelled_slices_is_wrong() -> None:
    reference, prediction = np.zeros((2, 12, 10, 10), np.uint8)
    reference[3:8, 3:6, 3:6] = prediction[8:, 3:6, 3:6] = 5
    assert flare23_script(prediction.T, reference.T, (1, 1, 1))[4] == (0, 0)
    assert score(FLARE23, prediction, reference, (1, 1, 1)).classes["Aorta"] == (0.0, 0.0)


def test_a_single_labelled_slice_on_which_the_script_crashes() -> None:
    reference, prediction = np.zeros((2, 12, 10, 10), np.uint8)
    reference[3, 3:6, 3:6] = prediction[:, 3:6, 3:6] = 5
    with pytest.raises((ValueError, AttributeError)):
        flare23_script(prediction.T, reference.T, (1, 1, 1))
    assert score(FLARE23, prediction, reference, (1, 1, 1)).classes["Aorta"] == (1.0, 1.0)
    prediction[3] = 0
    assert score(FLARE23, prediction, reference, (1, 1, 1)).classes["Aorta"] == (0.0, 0.0)


def test_flare23_ignores_labels_without_a_class() -> None:
    prediction, reference = label_maps(3, 14)
    expected = score(FLARE23, prediction, reference, SPACING_ZYX)
    prediction[prediction == 0] = 15
    reference[reference == 0] = 200  # -56 as int8
    assert score(FLARE23, prediction, reference, SPACING_ZYX) == expected


@pytest.mark.parametrize("rules", [FLARE23, FLARE24])
def test_layouts_do_not_matter(rules: ScoringRules) -> None:
    prediction, reference = label_maps(5, max(rules.label_values))
    expected = score(rules, prediction, reference, SPACING_ZYX)
    flipped = prediction[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1]
    assert score(rules, flipped, np.asfortranarray(reference), SPACING_ZYX) == expected


def test_what_the_rules_say() -> None:
    assert FLARE24.label_values == {0, 1}
    assert FLARE24.lesion_label == 1
    assert FLARE23.label_values == set(range(15))
    assert FLARE23.lesion_label == 14
    assert {c.name: c.tolerance_mm for c in FLARE23.classes} == TOLERANCES
    for rules in (FLARE23, FLARE24):
        assert [c.label for c in rules.classes] == list(range(1, len(rules.classes) + 1))


def test_impossible_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="they must be equal"):
        score(FLARE24, lesion(1)[:3], lesion(1), (1, 1, 1))
    with pytest.raises(ValueError, match="3 axes"):
        score(FLARE24, lesion(1)[2], lesion(1)[2], (1, 1, 1))
    with pytest.raises(ValueError, match="spacing_zyx"):
        score(FLARE24, lesion(1), lesion(1), (1, 1, -1))
