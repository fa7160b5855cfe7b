"""One picture of a segmented scan: three planes through one lesion, whole and enlarged.

Everything is drawn as radiologists look at it: from the feet (the patient's right on the left) in
the axial plane, from the front in the coronal one, the face to the left in the sagittal one.
"""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import AbstractPathEffect
from numpy.typing import NDArray
from PIL import Image

from evaluation.pictures.focus import Choice, Focus, find_focus, turn_upright
from evaluation.scoring.metrics import dice
from evaluation.volumes import Volume, lesion_ml
from volumes.grid import grid_difference

# The lung window is centred higher (-400) than usual (-600) so that the chest wall is not white.
WINDOWS_HU = {"lung window": (-1150, 350), "soft-tissue window": (-160, 240)}
LUNG_HU = (-950, -500)  # aerated lung: neither soft tissue nor the air around the patient
PREDICTION_COLOUR, REFERENCE_COLOUR = "#ffb000", "#35d0ff"  # apart for colour-blind readers too
BACKGROUND, TEXT = "#111111", "#e8e8e8"
STEPS = 8  # an outline follows the edges of voxels, drawn on a grid this much finer


@dataclass(frozen=True)
class View:
    """A plane across array axis `axis` of a (z, y, x) volume that runs to S, P and L."""

    name: str
    axis: int
    letters: tuple[str, str, str, str]  # at the left, right, top and bottom edge

    def cut(self, volume_zyx: NDArray[Any], index: int) -> NDArray[Any]:
        """Return slice `index` as shown: the first row is the top, the first column the left."""
        plane: NDArray[Any] = np.take(volume_zyx, index, axis=self.axis)
        return plane if self.axis == 0 else plane[::-1]

    def box(self, low_zyx: NDArray[Any], high_zyx: NDArray[Any], size_z: float) -> NDArray[Any]:
        """Return a 3D box's (left, right, top, bottom) in this plane, all in the given unit.

        size_z: the volume's extent along z, from which the planes that show z upwards count.
        """
        rows, columns = [axis for axis in range(3) if axis != self.axis]
        top, bottom = low_zyx[rows], high_zyx[rows]
        if self.axis != 0:
            top, bottom = size_z - bottom, size_z - top
        return np.array([low_zyx[columns], high_zyx[columns], top, bottom])


VIEWS = (
    View("axial", 0, ("R", "L", "A", "P")),
    View("coronal", 1, ("R", "L", "S", "I")),
    View("sagittal", 2, ("A", "P", "S", "I")),
)


def draw(
    scan: Volume,
    mask: Volume,
    reference: Volume | None,
    *,
    name: str,
    lesion: Choice = "largest",
) -> Figure:
    """Draw a scan with its predicted mask and, where there is one, its reference mask.

    scan: CT in HU, stored in any orientation (an oblique one is shown along its nearest axes).
    mask, reference: bools or integers on the scan's grid; every value other than 0 is lesion.
    lesion: which one of the reference the planes cross, the largest or the worst, as `find_focus`
    says; the title says so too. The window is the lung window where aerated lung surrounds that
    lesion, else the soft-tissue window; the caption says which.
    Returns 2 rows (whole, enlarged) of 3 axes (axial, coronal, sagittal).
    Raises ValueError when a mask is not on the scan's grid, or that has no three axes.
    """
    for what, other in (("mask", mask), ("reference", reference)):
        difference = None if other is None else grid_difference(scan.grid, other.grid)
        if difference is not None:
            raise ValueError(f"{what} is not on the scan's grid: its {difference}")
    # A mask's own header may name its axes by its other form, or the scan's may not name them.
    upright = turn_upright(scan.grid)
    hu, spacing_zyx = upright(scan.voxels_zyx), upright.spacing_zyx
    predicted = upright(mask.voxels_zyx) != 0
    expected = None if reference is None else upright(reference.voxels_zyx) != 0
    focus = find_focus(predicted, expected, spacing_zyx, lesion)
    window = choose_window(hu, focus, spacing_zyx)

    figure = Figure(figsize=(12, 8.9), dpi=100, facecolor=BACKGROUND)
    grid = figure.subplots(2, 3)
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.055, top=0.875, wspace=0.02, hspace=0.02)
    low_mm, high_mm = enlarged_box(focus, np.array(hu.shape), spacing_zyx)
    for column, view in enumerate(VIEWS):
        for axes in grid[:, column]:
            _show_plane(axes, view, hu, focus.slices[view.axis], spacing_zyx, window)
            _outline(axes, view, predicted, focus, spacing_zyx, PREDICTION_COLOUR, "solid")
            if expected is not None:
                _outline(axes, view, expected, focus, spacing_zyx, REFERENCE_COLOUR, "dashed")
        crop = view.box(low_mm, high_mm, hu.shape[0] * spacing_zyx[0])
        _mark_enlarged(grid[0, column], crop)
        grid[1, column].set(xlim=(crop[0], crop[1]), ylim=(crop[3], crop[2]))
        for axes in grid[:, column]:
            _annotate(axes, view)
    _caption(figure, name, focus, window, mask, reference)
    return figure


def png(figure: Figure) -> bytes:
    """Return a figure of `draw` as a PNG, whose greys and two colours fit into a palette."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    # Which saves two thirds of the file.
    picture = picture.quantize(palette=_palette(), dither=Image.Dither.NONE)
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    return file.getvalue()


def choose_window(hu: NDArray[Any], focus: Focus, spacing_zyx: NDArray[Any]) -> str:
    """Name the window that shows this lesion: lung if a quarter of its 2 cm surroundings is."""
    margin = np.ceil(20.0 / spacing_zyx).astype(int)
    low, high = np.maximum(focus.low - margin, 0), focus.high + margin
    around = hu[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    lung = np.mean((around > LUNG_HU[0]) & (around < LUNG_HU[1]))
    return "lung window" if lung > 0.25 else "soft-tissue window"


def enlarged_box(
    focus: Focus, shape_zyx: NDArray[Any], spacing_zyx: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the corners (z, y, x; mm from the volume's corner) of the cube to enlarge.

    Its side is 2.5 times the lesion's longest extent, at least 70 mm, at most the volume's longest
    side; it lies inside the volume where it fits.
    """
    extent_mm = shape_zyx * spacing_zyx
    low_mm, high_mm = focus.low * spacing_zyx, focus.high * spacing_zyx
    side = min(max(70.0, 2.5 * float(np.max(high_mm - low_mm))), float(extent_mm.max()))
    corner = (low_mm + high_mm - side) / 2
    inside = np.clip(corner, 0, np.maximum(extent_mm - side, 0))
    corner = np.where(extent_mm >= side, inside, (extent_mm - side) / 2)
    return corner, corner + side


def round_length_mm(width_mm: float) -> int:
    """Return the longest round length that takes at most 30 % of a picture's width."""
    lengths = [length for length in (200, 100, 50, 20, 10, 5, 2) if length <= 0.3 * width_mm]
    return lengths[0] if lengths else 1


def _palette() -> Image.Image:
    """Return 208 greys, and the two colours blended with greys as antialiased lines are."""
    greys = np.linspace(0, 255, 208)[:, None] * np.ones(3)
    blends = [
        share * np.array(to_rgb(colour)) * 255 + (1 - share) * grey
        for colour in (PREDICTION_COLOUR, REFERENCE_COLOUR)
        for share in (1 / 3, 2 / 3, 1)
        for grey in np.linspace(0, 255, 8)
    ]
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.vstack([greys, blends]).round().astype(np.uint8).tobytes())
    return palette


def _show_plane(
    axes: Axes, view: View, hu: NDArray[Any], index: int, spacing: NDArray[Any], window: str
) -> None:
    plane = view.cut(hu, index)
    height, width = np.delete(spacing, view.axis).tolist()
    extent = (0.0, plane.shape[1] * width, plane.shape[0] * height, 0.0)
    low, high = WINDOWS_HU[window]
    axes.imshow(plane, cmap="gray", vmin=low, vmax=high, extent=extent, interpolation="bilinear")
    axes.autoscale(False)  # an outline or the square at the border would widen the panel
    axes.set_facecolor("black")
    axes.set_axis_off()


def _outline(
    axes: Axes,
    view: View,
    lesions: NDArray[np.bool_],
    focus: Focus,
    spacing: NDArray[Any],
    colour: str,
    style: str,
) -> None:
    plane = np.pad(view.cut(lesions, focus.slices[view.axis]), 1)
    rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
    if rows.size == 0:
        return
    top, left = rows[0] - 1, columns[0] - 1
    part = plane[top : rows[-1] + 2, left : columns[-1] + 2]
    fine = np.kron(part, np.ones((STEPS, STEPS)))
    height, width = np.delete(spacing, view.axis)
    # The padding moved everything by one voxel; a sample of the fine grid lies in its middle.
    y = (top - 1 + (np.arange(fine.shape[0]) + 0.5) / STEPS) * height
    x = (left - 1 + (np.arange(fine.shape[1]) + 0.5) / STEPS) * width
    lines = axes.contour(x, y, fine, levels=[0.5], colors=colour, linewidths=1.6, linestyles=style)
    lines.set_path_effects(_halo(2.6, 0.5))


def _mark_enlarged(axes: Axes, crop: NDArray[Any]) -> None:
    left, right, top, bottom = crop
    square = Rectangle((left, top), right - left, bottom - top, fill=False, ec="white", lw=1)
    square.set_path_effects(_halo(2.5, 0.8))
    axes.add_patch(square)


def _halo(width: float, alpha: float) -> list[AbstractPathEffect]:
    """Return what lets lines and words stand out from any grey."""
    return [patheffects.withStroke(linewidth=width, foreground="black", alpha=alpha)]


def _annotate(axes: Axes, view: View) -> None:
    style: dict[str, Any] = {"transform": axes.transAxes, "color": TEXT}
    style["path_effects"] = _halo(2.5, 1)
    places = ((0.02, 0.5, "left"), (0.98, 0.5, "right"), (0.5, 0.97, "center"), (0.5, 0.03, ""))
    for letter, (x, y, align) in zip(view.letters, places, strict=True):
        axes.text(x, y, letter, ha=align or "center", va="center", fontsize=13, **style)
    axes.text(0.02, 0.97, view.name, ha="left", va="top", fontsize=11, **style)
    left, right = axes.get_xlim()
    length = round_length_mm(right - left)
    fraction = length / (right - left)
    bar = Line2D([0.02, 0.02 + fraction], [0.03, 0.03], transform=axes.transAxes, color=TEXT, lw=3)
    bar.set_path_effects(_halo(5, 1))
    axes.add_line(bar)
    axes.text(0.02, 0.045, f"{length} mm", ha="left", va="bottom", fontsize=10, **style)


def _caption(
    figure: Figure, name: str, focus: Focus, window: str, mask: Volume, reference: Volume | None
) -> None:
    def volume(lesions: Volume) -> str:
        voxels = np.count_nonzero(lesions.voxels_zyx)
        return f"{lesion_ml(lesions):.2f} ml ({voxels} voxels)" if voxels else "no lesion"

    handles = [Line2D([], [], color=PREDICTION_COLOUR, lw=2.2, label=f"prediction {volume(mask)}")]
    title = name
    if reference is not None:
        label = f"reference {volume(reference)}"
        handles.append(Line2D([], [], color=REFERENCE_COLOUR, lw=2.2, ls="dashed", label=label))
        title += f"   DSC {100 * dice(mask.voxels_zyx, reference.voxels_zyx):.1f} %"
    bold: dict[str, Any] = {"fontsize": 17, "weight": "bold", "parse_math": False}
    figure.text(0.015, 0.955, title, color=TEXT, va="center", **bold)
    figure.text(0.985, 0.955, focus.said, color=TEXT, fontsize=13, ha="right", va="center")
    figure.legend(
        handles=handles,
        loc="center left",
        bbox_to_anchor=(0.008, 0.908),
        ncols=2,
        frameon=False,
        labelcolor=TEXT,
        fontsize=12,
        handlelength=2.6,
    )
    low, high = WINDOWS_HU[window]
    text = f"{window}, {low} to {high} HU. Above: whole planes; below: the marked square enlarged."
    figure.text(0.015, 0.027, text, color=TEXT, fontsize=10.5, va="center", alpha=0.85)
