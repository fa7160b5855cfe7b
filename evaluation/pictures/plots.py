"""One picture of a case's GPU memory over time, with a challenge's limits and what it counts."""

import io

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from evaluation.challenges import CaseLimits, as_gb
from evaluation.gpu.curve import Curve, Floats, thinned
from evaluation.record import Vram

COLUMNS = 1000  # about the width of the drawing in pixels
COLOUR, GREY = "#1f5fa8", "#555555"
TICKS = 8  # at most so many on the memory axis


def draw(curve: Curve, vram: Vram, *, name: str, runtime_s: float, limits: CaseLimits) -> Figure:
    """Draw a GPU's memory before, during and after one run, in a figure with one axes.

    curve: its times count from the container's start. vram: the baseline, and what the run used
    above it. runtime_s: from start to finish. limits: of time, and of memory above the baseline,
    are drawn where they are in view. Raises ValueError when the curve has no sample.
    """
    if not len(curve):
        raise ValueError("the memory curve has no sample")
    times, memory, baseline_mib = curve.t_s, curve.used_mib, vram.baseline_mib
    figure = Figure(figsize=(10, 5), dpi=120, facecolor="white")
    axes = figure.add_axes((0.085, 0.115, 0.84, 0.72))
    axes.plot(*thinned(times, memory, COLUMNS), color=COLOUR, lw=1.3)
    during = during_run(times, memory, runtime_s)
    axes.fill_between(
        *thinned(*during, COLUMNS),
        baseline_mib,
        facecolor=COLOUR,
        alpha=0.16,
        hatch="//",
        ec=COLOUR,
        lw=0,
    )
    axes.set_xlim(min(times[0], 0.0), max(times[-1], runtime_s) * 1.02)
    # Room for words: above the curve, and above the limit where that is in view.
    top_mib = 1.25 * max(float(memory.max()), baseline_mib, 1.0)
    limit_mib = baseline_mib + (limits.vram_mib or np.inf)
    _memory_axis(axes, max(top_mib, 1.15 * limit_mib) if limit_mib < top_mib else top_mib)
    _mark_levels(axes, baseline_mib, runtime_s, limits)
    _mark_peak(axes, during, vram.peak_vram_mib)
    axes.set_xlabel("seconds since the container started")
    figure.text(0.085, 0.945, name, fontsize=13, weight="bold", va="center", parse_math=False)
    caption = (
        f"above the baseline: peak {vram.peak_vram_mib:.0f} MiB, area {vram.area_mib_s:.0f} MiB·s"
        f" (hatched)   runtime {runtime_s:.1f} s"
    )
    figure.text(0.085, 0.895, caption, fontsize=10.5, va="center")
    return figure


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG."""
    file = io.BytesIO()
    FigureCanvasAgg(figure).print_png(file)
    return file.getvalue()


def during_run(t_s: Floats, used_mib: Floats, runtime_s: float) -> tuple[Floats, Floats]:
    """Return the samples from 0 to runtime_s with both ends interpolated, as areas are measured."""
    inside = (t_s > 0) & (t_s < runtime_s)
    times = np.concatenate(([0.0], t_s[inside], [runtime_s]))
    return times, np.interp(times, t_s, used_mib)


def _memory_axis(axes: Axes, top_mib: float) -> None:
    axes.set_ylim(0.0, top_mib)
    step = 2.0 ** np.ceil(np.log2(top_mib / TICKS))
    axes.yaxis.set_major_locator(MultipleLocator(step))
    axes.set_ylabel("GPU memory in use (MiB)")
    in_gib = axes.secondary_yaxis(
        "right", functions=(lambda mib: np.divide(mib, 1024), lambda gib: np.multiply(gib, 1024))
    )
    in_gib.yaxis.set_major_locator(MultipleLocator(step / 1024))
    in_gib.set_ylabel("GiB")
    axes.grid(axis="y", color="#dddddd", lw=0.6)
    axes.set_axisbelow(True)
    axes.spines["top"].set_visible(False)


def _mark_levels(axes: Axes, baseline_mib: float, runtime_s: float, limits: CaseLimits) -> None:
    """Draw baseline, start, finish and limits, each with a line style and words of its own."""
    (left, right), (_, top) = axes.get_xlim(), axes.get_ylim()

    def across(mib: float, style: str, text: str, at_s: float, align: str) -> None:
        axes.axhline(mib, color=GREY, ls=style, lw=1.2)
        _write(axes, text, (at_s, mib), (-4 if align == "right" else 4, 3), align)

    def down(second: float, style: str, text: str, offset_points: float) -> None:
        axes.axvline(second, color=GREY, ls=style, lw=1.2)
        align = "right" if second > left + 0.8 * (right - left) else "left"
        _write(axes, text, (second, top), (-4 if align == "right" else 4, offset_points), align)

    across(baseline_mib, "dotted", f"baseline {baseline_mib:.0f} MiB", right, "right")
    down(0.0, "dashdot", "start", 3)
    down(runtime_s, "dashdot", "finish", 3)
    if limits.vram_mib is not None and baseline_mib + limits.vram_mib < top:
        text = f"{as_gb(limits.vram_mib)} above the baseline"
        across(baseline_mib + limits.vram_mib, "dashed", text, max(left, 0.0), "left")
    if limits.time_s is not None and right > limits.time_s:
        # Lower, as it may be near start or finish.
        down(limits.time_s, "dashed", f"{limits.time_s:g} s", -12)


def _mark_peak(axes: Axes, during: tuple[Floats, Floats], peak_mib: float) -> None:
    times, memory = during
    highest = int(np.argmax(memory))
    second, mib = float(times[highest]), float(memory[highest])
    axes.plot([second], [mib], "v", color="black", ms=7)
    left, right = axes.get_xlim()
    across = (second - left) / (right - left)
    align = "left" if across < 0.25 else "right" if across > 0.75 else "center"
    text = f"peak {peak_mib:.0f} MiB above the baseline, at {second:.1f} s"
    _write(axes, text, (second, mib), (0, 8), align)


def _write(
    axes: Axes, text: str, at: tuple[float, float], offset: tuple[float, float], align: str
) -> None:
    """Write at a place in the axes' units, moved by an offset in points, on a white ground."""
    ground = [patheffects.withStroke(linewidth=3, foreground="white")]
    axes.annotate(text, at, offset, textcoords="offset points", ha=align, path_effects=ground)
