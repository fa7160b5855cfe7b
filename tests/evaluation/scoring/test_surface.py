"""surface_dice against DeepMind's surface-distance, which is installed for these tests only."""

import itertools
import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from surface_distance import lookup_tables  # type: ignore[import-untyped]
from surface_distance import metrics as deepmind

from evaluation.scoring import surface
from evaluation.scoring.surface import surface_dice

pytestmark = pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]
SPACINGS: tuple[Spacing, ...] = (
    (1.0, 1.0, 1.0),
    (5.0, 0.7, 0.7),
    (0.5, 0.5, 8.0),
    (2.5, 0.8, 0.8),
    (0.4, 0.4, 0.4),
    (2 / 3, 2 / 3, 2 / 3),
    (float(np.float32(1.25)), float(np.float32(0.78125)), float(np.float32(0.9))),
)
TOLERANCES_MM = (0.0, 0.5, 1.0, 2.0, 2.5, 7.0, 1000.0)
EXACT = 1e-12


def by_deepmind(
    prediction: NDArray[np.generic],
    reference: NDArray[np.generic],
    spacing_zyx: Sequence[float],
    tolerance_mm: float,
) -> float:
    distances = deepmind.compute_surface_distances(reference != 0, prediction != 0, spacing_zyx)
    return float(deepmind.compute_surface_dice_at_tolerance(distances, tolerance_mm))


def difference(*arguments: Any) -> float:
    return abs(surface_dice(*arguments) - by_deepmind(*arguments))


def agree(
    first: Mask, second: Mask, spacings: Iterable[Spacing], tolerances: Iterable[float]
) -> bool:
    """Whether they do whichever of the masks is the reference, in each of these spacings."""
    return all(
        difference(*pair, spacing, tolerance) <= EXACT
        for spacing, tolerance in itertools.product(spacings, tolerances)
        for pair in ((first, second), (second, first))
    )


def box(shape: tuple[int, ...], *parts: slice | int) -> Mask:
    mask = np.zeros(shape, np.bool_)
    mask[parts] = True
    return mask


def random_pair(seed: int) -> tuple[Mask, Mask]:
    """Noise, or blobs and blobs like them; thin or thick, often touching the border."""
    random = np.random.default_rng(seed)
    shape = tuple(random.integers(1, 24, 3))
    blobs = random.random() < 0.7
    fields = random.standard_normal((2, *shape))
    if blobs:
        fields = gaussian_filter(fields, (0, *random.uniform(0, 3, 3)))
        fields[1] = fields[0] + random.uniform(0, 0.5) * fields[1]
    share = random.uniform(0.01, 0.6)
    first, second = (field > np.quantile(field, 1 - share) for field in fields)
    for mask in (first, second):
        mask.flat[random.integers(mask.size)] = True
    return first, second


def test_random_pairs() -> None:
    random = np.random.default_rng(0)
    worst, values = (0.0, -1), set()
    for seed in range(300):
        prediction, reference = random_pair(seed)
        spacing, tolerance = random.choice(SPACINGS), random.choice(TOLERANCES_MM)
        worst = max(worst, (difference(prediction, reference, spacing, tolerance), seed))
        values.add(round(surface_dice(prediction, reference, spacing, tolerance), 3))
    assert worst[0] <= EXACT, f"seed {worst[1]} differs by {worst[0]}"
    assert len(values) > 60  # not all 0 and 1


def test_areas_of_every_code() -> None:
    for spacing in SPACINGS:
        theirs = lookup_tables.create_table_neighbour_code_to_surface_area(spacing)
        np.testing.assert_allclose(surface._areas_mm2(np.array(spacing)), theirs, rtol=1e-14)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("side", [slice(0, 3), slice(-3, None), slice(None)])
def test_masks_that_touch_the_border(axis: int, side: slice) -> None:
    parts = [slice(2, 6)] * 3
    parts[axis] = side
    inside = box((8, 9, 10), slice(3, 7), slice(3, 7), slice(3, 7))
    assert agree(box((8, 9, 10), *parts), inside, SPACINGS, TOLERANCES_MM)


def test_a_mask_that_fills_the_volume() -> None:
    full = np.ones((4, 5, 6), np.bool_)
    assert agree(full, box((4, 5, 6), 1, 2, 3), SPACINGS, TOLERANCES_MM)
    for spacing, tolerance in itertools.product(SPACINGS, TOLERANCES_MM):
        assert surface_dice(full, full, spacing, tolerance) == 1.0


def test_single_voxels_anywhere() -> None:
    """Volumes of one slice, row or voxel too."""
    for shape in ((3, 3, 3), (1, 4, 4), (4, 1, 4), (4, 4, 1), (1, 1, 3)):
        places = list(np.ndindex(*shape))
        for first, second in itertools.product(places[::2], places[::3]):
            pair = box(shape, *first), box(shape, *second)
            assert difference(*pair, (2.5, 0.8, 0.5), 2.0) <= EXACT


@pytest.mark.parametrize("axis", range(3))
def test_planes_of_one_voxel(axis: int) -> None:
    planes = []
    for position in (2, 3, 6):
        parts: list[slice | int] = [slice(None)] * 3
        parts[axis] = position
        planes.append(box((9, 9, 9), *parts))
    for pair in itertools.combinations_with_replacement(planes, 2):
        assert agree(*pair, SPACINGS[:4], TOLERANCES_MM[:4])


@pytest.mark.parametrize("tolerance", TOLERANCES_MM)
def test_a_tiny_mask_against_a_big_one(tolerance: float) -> None:
    big = box((40, 40, 40), slice(1, 39), slice(0, 40), slice(5, 35))
    for tiny in (box(big.shape, 20, 20, 20), box(big.shape, 0, 0, 39)):
        assert agree(big, tiny, [(1.0, 0.7, 0.7), (5.0, 0.7, 0.7)], [tolerance])


LAYOUTS: dict[str, Callable[[Mask], NDArray[np.generic]]] = {
    "negative strides": lambda mask: mask[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1],
    "one flipped axis": lambda mask: mask[:, ::-1].copy()[:, ::-1],
    "Fortran order": np.asfortranarray,
    "every other voxel of a larger array": lambda mask: mask.repeat(2, axis=2)[:, :, ::2],
    "uint8 of 255": lambda mask: mask.astype(np.uint8) * np.uint8(255),
    "int16 of -256": lambda mask: mask.astype(np.int16) * np.int16(-256),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=list(LAYOUTS))
def test_every_layout_and_type(layout: Callable[[Mask], NDArray[np.generic]]) -> None:
    for seed in range(1000, 1010):
        prediction, reference = random_pair(seed)
        expected = surface_dice(prediction, reference, (2.5, 0.8, 0.8), 1.0)
        assert surface_dice(layout(prediction), reference, (2.5, 0.8, 0.8), 1.0) == expected
        assert surface_dice(prediction, layout(reference), (2.5, 0.8, 0.8), 1.0) == expected


def test_turned_volumes_have_the_same_surface() -> None:
    for seed in range(2000, 2010):
        prediction, reference = random_pair(seed)
        spacing = (2.5, 0.8, 0.5)
        expected = surface_dice(prediction, reference, spacing, 1.3)
        for axes in itertools.permutations(range(3)):
            pair = prediction.transpose(axes), reference.transpose(axes)
            turned = surface_dice(*pair, np.array(spacing)[[*axes]], 1.3)
            assert turned == pytest.approx(expected, abs=EXACT)


def test_distances_of_exactly_the_tolerance() -> None:
    """Decimal steps that add up to the tolerance on paper, but in binary only sometimes."""
    values: dict[bool, set[float]] = {True: set(), False: set()}
    first = box((12, 12, 12), slice(0, 3), slice(0, 3), slice(0, 3))
    for tenths, steps in itertools.product((1, 2, 3, 4, 5, 7, 8, 9, 25), (3, 5, 6, 7)):
        step_mm, tolerance = tenths / 10, tenths * steps / 10
        for axis in range(3):
            second = np.roll(first, steps, axis)
            spacing = [1.1 * step_mm] * 3
            spacing[axis] = step_mm
            assert difference(first, second, spacing, tolerance) <= EXACT
            exactly = steps * step_mm <= tolerance
            values[exactly].add(round(surface_dice(first, second, spacing, tolerance), 6))
    assert values[True]
    assert values[False]
    assert not values[True] & values[False]


Offsets = tuple[tuple[int, int, int], ...]
# Every offset (in voxels) is exactly the tolerance.
EXACT_TIES: tuple[tuple[Spacing, float, Offsets], ...] = (
    ((1.0, 1.0, 1.0), 3.0, ((3, 0, 0), (0, 3, 0), (1, 2, 2), (2, 1, 2), (2, 2, 1))),
    ((2.5, 1.25, 1.25), 5.0, ((2, 0, 0), (0, 4, 0), (0, 0, 4))),
    ((0.5, 1.0, 1.0), 5.0, ((0, 3, 4), (8, 3, 0), (0, 5, 0), (6, 0, 4))),
    ((1.0, 1.0, 1.0), 7.0, ((2, 3, 6), (6, 2, 3), (3, 6, 2), (7, 0, 0))),
)
# On paper it is; in binary some are more, some are not.
TIES: tuple[tuple[Spacing, float, Offsets], ...] = (
    ((1.2, 0.4, 0.4), 1.2, ((1, 0, 0), (0, 3, 0), (0, 0, 3))),
    ((1.2, 0.8, 0.8), 2.4, ((2, 0, 0), (0, 3, 0), (0, 0, 3))),
    ((1.0, 0.4, 0.4), 3.0, ((3, 0, 0), (1, 5, 5), (1, 1, 7), (1, 7, 1))),
    ((1.3, 1.3, 1.3), 3.9, ((1, 2, 2), (2, 1, 2), (2, 2, 1), (3, 0, 0), (0, 3, 0))),
)


@pytest.mark.parametrize(("spacing", "tolerance", "offsets"), EXACT_TIES + TIES)
def test_several_neighbours_at_exactly_the_tolerance(
    spacing: Spacing, tolerance: float, offsets: Offsets
) -> None:
    random = np.random.default_rng(0)
    for _ in range(40):
        first, second = np.zeros((2, 18, 18, 18), np.bool_)
        for point in random.integers(18, size=(20, 3)):
            first[tuple(point)] = True
            for offset in random.permutation(offsets)[:2]:
                second[tuple((point + random.choice((-1, 1), 3) * offset) % 18)] = True
        assert difference(first, second, spacing, tolerance) <= EXACT


@pytest.mark.parametrize(("spacing", "tolerance", "offsets"), TIES)
def test_the_tree_alone_does_not_decide_ties(
    spacing: Spacing, tolerance: float, offsets: Offsets
) -> None:
    """Two neighbours on paper equally near, of which the tree returns either."""
    steps_mm = np.array(spacing)
    origin = np.zeros((1, 3), np.int64)
    distances = surface._distances_mm(origin, np.array(offsets), steps_mm)
    is_near = distances <= tolerance
    within, beyond = np.array(offsets)[is_near], np.array(offsets)[~is_near]
    assert len(within)
    assert len(beyond)
    for start, near, far in itertools.product(range(0, 300, 7), within, beyond):
        own = origin + start
        for others in ((near, far), (far, near)):
            assert surface._near(own, own + np.array(others), steps_mm, tolerance).all()
        assert not surface._near(own, own + far, steps_mm, tolerance).any()


@pytest.mark.parametrize("tolerance", [0.0, 2.0, 1000.0])
def test_one_empty_mask(tolerance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "Inf", np.inf, raising=False)  # DeepMind's code predates NumPy 2
    empty, lesion = np.zeros((4, 5, 6), np.bool_), box((4, 5, 6), 1, 2, 3)
    for one, other in ((empty, lesion), (lesion, empty)):
        assert surface_dice(one, other, (1, 1, 1), tolerance) == 0.0
        assert by_deepmind(one, other, (1, 1, 1), tolerance) == 0.0


def test_two_empty_masks_agree() -> None:
    empty = np.zeros((4, 5, 6), np.uint8)
    assert surface_dice(empty, empty, (1, 1, 1), 0.0) == 1.0


def test_nothing_of_the_volume_s_size_is_allocated() -> None:
    prediction, reference = (np.zeros((120, 256, 256), np.uint8) for _ in range(2))
    for z, y, x in np.random.default_rng(0).integers(0, (110, 240, 240), (20, 3)):
        prediction[z : z + 8, y : y + 10, x : x + 10] = 1
        reference[z : z + 7, y + 1 : y + 11, x : x + 9] = 1
    tracemalloc.start()
    try:
        surface_dice(prediction, reference, (1.0, 0.7, 0.7), 2.0)
        assert tracemalloc.get_traced_memory()[1] < prediction.size / 2
    finally:
        tracemalloc.stop()


def test_impossible_arguments_are_named() -> None:
    mask = np.ones((2, 3, 4), np.bool_)
    for spacing in ((1, 1), (1, 1, 0), (1, -1, 1), (1, 1, np.nan), (1, np.inf, 1)):
        with pytest.raises(ValueError, match="spacing_zyx is"):
            surface_dice(mask, mask, spacing, 1.0)
    for tolerance in (-0.1, np.nan, np.inf):
        with pytest.raises(ValueError, match="tolerance_mm is"):
            surface_dice(mask, mask, (1, 1, 1), tolerance)
    with pytest.raises(ValueError, match=r"prediction has shape \(1, 3, 4\)"):
        surface_dice(mask[:1], mask, (1, 1, 1), 1.0)
    with pytest.raises(ValueError, match="3 axes"):
        surface_dice(mask[0], mask[0], (1, 1, 1), 1.0)
