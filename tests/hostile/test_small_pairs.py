"""Masks of any few voxels are scored, and their lesions are counted as scipy counts them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from evaluation.scoring.classes import score
from evaluation.scoring.lesions import detect
from tests.evaluation.challenges import FLARE23, FLARE24

PAIRS = 5000
EVERYWHERE = np.ones((3, 3, 3))


def counted(step: int) -> int:
    """Score every so many-th pair; returns how many there were."""
    done = 0
    for seed in range(0, PAIRS, step):
        random = np.random.default_rng(seed)
        shape, density = random.integers(1, 13, 3), random.uniform(0.001, 0.9, (2, 1, 1, 1))
        prediction, reference = (random.random((2, *shape)) < density).astype(np.uint8)
        spacing = random.uniform(0.3, 6.0, 3)
        found = detect(prediction, reference, spacing)
        expected, count = ndimage.label(reference, EVERYWHERE)
        predicted, predicted_count = ndimage.label(prediction, EVERYWHERE)
        touched = np.unique(expected[prediction > 0]), np.unique(predicted[reference > 0])
        hits, true = (int(np.count_nonzero(labels)) for labels in touched)
        counts = found.reference_lesions, found.predicted_lesions
        assert counts == (count, predicted_count), seed
        assert (found.detected_lesions, found.false_positives) == (
            hits,
            int(predicted_count) - true,
        )
        for challenge in (FLARE23, FLARE24):
            scores = score(challenge.scoring, prediction, reference, spacing)
            assert 0 <= scores.dsc <= 1, seed
            assert 0 <= scores.nsd <= 1, seed
        done += 1
    return done


def test_some_pairs() -> None:
    assert counted(20) == PAIRS // 20


@pytest.mark.slow
def test_all_pairs() -> None:
    assert counted(1) == PAIRS
