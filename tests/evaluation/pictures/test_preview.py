import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from nibabel import orientations
from numpy.typing import NDArray

from evaluation.pictures.focus import Choice, find_focus
from evaluation.pictures.preview import (
    PREDICTION_COLOUR,
    REFERENCE_COLOUR,
    draw,
    enlarged_box,
    png,
    round_length_mm,
)
from evaluation.volumes import Volume
from volumes.grid import Grid

# A lesion in the patient's right, front, upper part, as the letters at the panels' edges say it.
SHAPE_ZYX = (20, 40, 44)
SPACING = (1.0, 1.5, 5.0)
LESION = (slice(15, 17), slice(6, 10), slice(4, 9))


def volume(voxels_zyx: NDArray[Any], affine: NDArray[np.float64]) -> Volume:
    z, y, x = voxels_zyx.shape
    return Volume(Grid.of_affine((z, y, x), affine), voxels_zyx)


def stored(values_zyx: NDArray[Any], orientation: str) -> Volume:
    """A volume of values that run to S, P and L, whose x, y and z run to the letters given."""
    values_xyz, to = values_zyx.transpose(), tuple(orientation)
    turn = orientations.ornt_transform(*map(orientations.axcodes2ornt, (("L", "P", "S"), to)))
    affine = np.diag([*np.array(SPACING) * (-1, -1, 1), 1.0])  # from x, y, z to R, A and S
    turned = orientations.apply_orientation(values_xyz, turn)
    return volume(turned.transpose(), affine @ orientations.inv_ornt_aff(turn, values_xyz.shape))


def scan_and_mask(orientation: str = "LPS", around: int = -100) -> tuple[Volume, Volume]:
    mask = np.zeros(SHAPE_ZYX, np.uint8)
    mask[LESION] = 1
    hu = np.where(mask == 1, 60, around).astype(np.int16)
    return stored(hu, orientation), stored(mask, orientation)


def empty(like: Volume) -> Volume:
    return Volume(like.grid, np.zeros_like(like.voxels_zyx))


def outline(axes: Axes, which: int = 0) -> NDArray[np.float64]:
    """The corners of the prediction's outline, the first that is drawn, or the reference's."""
    return np.asarray(axes.collections[which].get_paths()[0].vertices, float)


@pytest.mark.parametrize(
    "orientation", ["LPS", "RAS", "RPS", "LAS", "LPI", "RAI", "SAR", "PIL", "ASL", "IRP"]
)
def test_the_lesion_is_at_the_right_edges_however_the_scan_is_stored(orientation: str) -> None:
    scan, mask = scan_and_mask(orientation)
    figure = draw(scan, mask, None, name="marker")
    expected = [("R", "L", "A", "P"), ("R", "L", "S", "I"), ("A", "P", "S", "I")]
    for axes, letters in zip(figure.axes[:3], expected, strict=True):
        shown = np.asarray(axes.images[0].get_array()) > 0
        # Right, front and head are where the lesion is: nearer to those letters' edges.
        assert (np.argwhere(shown).mean(axis=0) < np.array(shown.shape) / 2).all()
        left, _, _, top = axes.images[0].get_extent()
        assert (left, top) == (0, 0)
        at = {text.get_position(): text.get_text() for text in axes.texts}
        places = [(0.02, 0.5), (0.98, 0.5), (0.5, 0.97), (0.5, 0.03)]
        assert tuple(at[place] for place in places) == letters


def test_an_oblique_scan_is_shown_along_its_nearest_axes() -> None:
    scan, mask = scan_and_mask("RAI")
    tilt = np.deg2rad(30)
    rotation = np.eye(4)
    rotation[1:3, 1:3] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    affine = rotation @ scan.grid.affine
    oblique = volume(scan.voxels_zyx, affine), volume(mask.voxels_zyx, affine)
    figures = draw(*oblique, None, name="oblique"), draw(scan, mask, None, name="straight")
    for ours, theirs in zip(*(figure.axes for figure in figures), strict=True):
        np.testing.assert_array_equal(*(axes.images[0].get_array() for axes in (ours, theirs)))


def test_the_two_forms_of_a_header_may_differ() -> None:
    scan, mask = scan_and_mask("RAI")
    other = np.diag([-1.0, -1.5, 5.0, 1.0])
    header = replace(mask.grid, affines=(other, scan.grid.affine), affine=other)
    figure = draw(scan, Volume(header, mask.voxels_zyx), mask, name="both")
    assert "DSC 100.0 %" in figure.texts[0].get_text()
    for axes in figure.axes:
        np.testing.assert_array_equal(outline(axes), outline(axes, 1))


def test_panels_have_the_physical_aspect_ratio() -> None:
    figure = draw(*scan_and_mask(), None, name="marker")
    extents = [axes.images[0].get_extent() for axes in figure.axes[:3]]
    x_mm, y_mm, z_mm = 44 * 1.0, 40 * 1.5, 20 * 5.0
    sizes = [(right, bottom) for _, right, bottom, _ in extents]
    assert sizes == [(x_mm, y_mm), (x_mm, z_mm), (y_mm, z_mm)]
    assert [axes.get_aspect() for axes in figure.axes] == [1.0] * 6


def test_outlines_follow_the_edges_of_the_voxels() -> None:
    scan, mask = scan_and_mask()
    axial, coronal, _ = draw(scan, mask, None, name="marker").axes[:3]
    for axes, low_mm, high_mm, close_mm in (
        (axial, (4 * 1.0, 6 * 1.5), (9 * 1.0, 10 * 1.5), 0.1),
        # z counts from the head here.
        (coronal, (4 * 1.0, (20 - 17) * 5.0), (9 * 1.0, (20 - 15) * 5.0), 0.4),
    ):
        np.testing.assert_allclose(outline(axes).min(axis=0), low_mm, atol=close_mm)
        np.testing.assert_allclose(outline(axes).max(axis=0), high_mm, atol=close_mm)


def test_the_enlarged_panels_hold_the_whole_lesion() -> None:
    for axes in draw(*scan_and_mask("RAI"), None, name="marker").axes[3:]:
        line = outline(axes)
        (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
        assert bottom > top, "rows count downwards"
        assert (line > (left, top)).all()
        assert (line < (right, bottom)).all()


def test_prediction_is_solid_and_reference_dashed() -> None:
    scan, mask = scan_and_mask()
    lines: list[Any] = list(draw(scan, mask, mask, name="both").axes[0].collections)
    styles = [line.get_linestyle()[0][1] for line in lines]
    assert styles[0] is None
    assert styles[1]
    colours = [tuple(line.get_edgecolor()[0][:3]) for line in lines]
    np.testing.assert_allclose(colours, [to_rgb(PREDICTION_COLOUR), to_rgb(REFERENCE_COLOUR)])


def count_colour(file: bytes, colour: str, rows: slice, columns: slice) -> int:
    picture = imread(io.BytesIO(file), format="png")[rows, columns, :3]
    return int(np.count_nonzero(np.abs(picture - to_rgb(colour)).max(axis=-1) < 0.03))


def test_the_png_shows_the_lesion_on_the_patients_right() -> None:
    scan, mask = scan_and_mask("RAI")
    file = png(draw(scan, mask, None, name="marker"))
    axial = slice(112, 470)
    assert count_colour(file, PREDICTION_COLOUR, axial, slice(0, 205)) > 20
    assert count_colour(file, PREDICTION_COLOUR, axial, slice(205, 400)) == 0
    assert count_colour(file, REFERENCE_COLOUR, slice(None), slice(None)) == 0


def test_an_empty_prediction_shows_the_reference() -> None:
    scan, mask = scan_and_mask()
    figure = draw(scan, empty(mask), mask, name="missed")
    assert all(len(axes.collections) == 1 for axes in figure.axes)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["prediction no lesion", "reference 0.30 ml (40 voxels)"]
    assert "DSC 0.0 %" in figure.texts[0].get_text()


def test_without_any_lesion_the_middle_is_shown() -> None:
    scan, mask = scan_and_mask()
    figure = draw(scan, empty(mask), empty(mask), name="nothing")
    assert "no lesion: the middle of the scan" in [text.get_text() for text in figure.texts]
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), scan.voxels_zyx[10])


def test_the_title_says_which_lesion_is_shown() -> None:
    scan, mask = scan_and_mask()
    voxels = mask.voxels_zyx.copy()
    voxels[2:4, 30:32, 30:32] = 1
    reference = Volume(mask.grid, voxels)
    expected: dict[Choice, tuple[str, int]] = {
        "largest": ("largest of 2 lesions, 0.30 ml", 15),
        "worst": ("worst of 2 lesions, 0.06 ml, missed", 2),
    }
    for lesion, (said, z) in expected.items():
        figure = draw(scan, mask, reference, name="two", lesion=lesion)
        assert figure.texts[1].get_text() == said
        np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), scan.voxels_zyx[z])
        assert not figure.texts[0].get_parse_math(), "a case's name may hold two $"


@pytest.mark.parametrize(
    ("lesion", "spacing", "side", "corner"),
    [
        ((slice(0, 2), slice(198, 200), slice(100, 110)), (5, 1, 1), 70, [0, 130, 70]),
        ((slice(30), slice(200), slice(200)), (1, 1, 1), 200, [-85, 0, 0]),
    ],
)
def test_the_enlarged_cube_stays_inside_the_volume_and_is_no_larger(
    lesion: tuple[slice, ...], spacing: tuple[int, ...], side: int, corner: list[int]
) -> None:
    predicted = np.zeros((30, 200, 200), bool)
    predicted[lesion] = True
    focus = find_focus(predicted, None, np.ones(3))
    low, high = enlarged_box(focus, np.array(predicted.shape), np.array(spacing, float))
    assert (high - low).tolist() == [side] * 3
    assert low.tolist() == corner


@pytest.mark.parametrize(
    ("around", "window"), [(-850, "lung window"), (-1000, "soft-tissue"), (40, "soft-tissue")]
)
def test_the_window_follows_the_tissue_around_the_lesion(around: int, window: str) -> None:
    scan, mask = scan_and_mask(around=around)
    figure = draw(scan, mask, None, name="window")
    caption = figure.texts[-1].get_text()
    assert caption.startswith(window)
    low, high = figure.axes[0].images[0].get_clim()
    assert f"{low:.0f} to {high:.0f} HU" in caption


@pytest.mark.parametrize(
    ("width", "length"), [(300.0, 50), (70.0, 20), (1000.0, 200), (20.0, 5), (3.0, 1)]
)
def test_scale_bars_are_round(width: float, length: int) -> None:
    assert round_length_mm(width) == length


def test_panels_show_the_scan_and_nothing_beyond() -> None:
    scan, mask = scan_and_mask()
    whole = Volume(mask.grid, np.ones_like(mask.voxels_zyx))
    for axes in draw(scan, whole, mask, name="whole").axes[:3]:
        left, right, bottom, top = axes.images[0].get_extent()
        assert (axes.get_xlim(), axes.get_ylim()) == ((left, right), (bottom, top))


def test_the_scale_bar_is_as_long_as_it_says() -> None:
    for axes in draw(*scan_and_mask(), None, name="bar").axes:
        (label,) = [text.get_text() for text in axes.texts if text.get_text().endswith(" mm")]
        bar = next(line for line in axes.lines if line.get_linewidth() == 3)
        start, end = np.asarray(bar.get_xdata(), float)
        left, right = axes.get_xlim()
        assert (end - start) * (right - left) == pytest.approx(float(label.removesuffix(" mm")))


def test_a_mask_on_another_grid_is_refused() -> None:
    scan, mask = scan_and_mask()
    affine = mask.grid.affine.copy()
    affine[:3, 3] += 9.0
    moved = volume(mask.voxels_zyx, affine)
    with pytest.raises(ValueError, match="mask is not on the scan's grid: its origin"):
        draw(scan, moved, None, name="moved")
    with pytest.raises(ValueError, match="reference is not on the scan's grid: its origin"):
        draw(scan, mask, moved, name="moved")
