import io
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from msgspec.structs import replace
from PIL import Image

from evaluation.challenges import CaseLimits
from evaluation.pictures.plots import COLUMNS, draw, during_run, png
from tests.evaluation.challenges import FLARE24
from tests.evaluation.gpu.curves import curve
from tests.evaluation.records import VRAM

BASELINE_MIB = 600.0


def case(runtime_s: float, peak_mib: float) -> dict[str, Any]:
    """A trapezium: from the baseline at 2 s up to the peak at 4 s, down again after the finish."""
    t_s = [-1.0, 0.0, 2.0, 4.0, runtime_s - 1, runtime_s + 1, runtime_s + 2]
    used_mib = [BASELINE_MIB + net for net in (0, 0, 0, peak_mib, peak_mib, 0, 0)]
    vram = replace(VRAM, baseline_mib=BASELINE_MIB, peak_vram_mib=peak_mib, area_mib_s=1234.4)
    facts = {"name": "case_1", "runtime_s": runtime_s, "limits": FLARE24.limits}
    return {"curve": curve(t_s, used_mib), "vram": vram, **facts}


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in (*figure.texts, *figure.axes[0].texts)]


def lines_at(axes: Axes) -> tuple[dict[float, Any], dict[float, Any]]:
    """Line styles by place, of the lines that go across and of those that go down."""
    across: dict[float, Any] = {}
    down: dict[float, Any] = {}
    for line in axes.lines:
        x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
        if x.tolist() == [0, 1]:
            across[float(y[0])] = line.get_linestyle()
        elif y.tolist() == [0, 1]:
            down[float(x[0])] = line.get_linestyle()
    return across, down


def test_everything_is_drawn_and_said() -> None:
    figure = draw(**case(20.0, 2000.0))
    assert texts(figure) == [
        "case_1",
        "above the baseline: peak 2000 MiB, area 1234 MiB·s (hatched)   runtime 20.0 s",
        "baseline 600 MiB",
        "start",
        "finish",
        "peak 2000 MiB above the baseline, at 4.0 s",
    ]
    axes = figure.axes[0]
    across, down = lines_at(axes)
    assert list(across) == [600.0]
    assert list(down) == [0.0, 20.0]
    line, marker = axes.lines[0], axes.lines[-1]
    given = case(20.0, 2000.0)["curve"]
    np.testing.assert_array_equal(line.get_xydata(), np.column_stack([given.t_s, given.used_mib]))
    np.testing.assert_array_equal(marker.get_xydata(), [[4.0, 2600.0]])
    assert axes.get_xlabel() == "seconds since the container started"
    assert axes.get_ylabel() == "GPU memory in use (MiB)"


def test_the_shaded_area_lies_between_baseline_and_curve_from_start_to_finish() -> None:
    (area,) = draw(**case(20.0, 2000.0)).axes[0].collections
    x, y = np.asarray(area.get_paths()[0].vertices).T
    assert (x.min(), x.max()) == (0.0, 20.0)
    assert (y.min(), y.max()) == (600.0, 2600.0)
    shoelace = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    # 2 s up, 15 s at the top, then 1 s of the 2 s down.
    assert shoelace == pytest.approx(2000 * (2 / 2 + 15 + 0.75))
    assert area.get_hatch(), "seen without colour"


def test_what_lies_below_the_baseline_is_shaded_too() -> None:
    (area,) = draw(**case(20.0, -300.0)).axes[0].collections
    y = np.asarray(area.get_paths()[0].vertices)[:, 1]
    assert (y.min(), y.max()) == (300.0, 600.0)


@pytest.mark.parametrize(
    ("runtime_s", "peak_mib", "time", "memory"),
    [
        (20.0, 2000.0, False, False),
        (42.0, 4000.0, False, True),  # the curve ends at 44 s; room for words above 4600 MiB
        (44.0, 3000.0, True, False),
        (90.0, 5000.0, True, True),
    ],
)
def test_limits_are_drawn_where_they_are_in_view(
    runtime_s: float, peak_mib: float, time: bool, memory: bool
) -> None:
    figure = draw(**case(runtime_s, peak_mib))
    across, down = lines_at(figure.axes[0])
    assert (45.0 in down) == ("45 s" in texts(figure)) == time
    assert (600.0 + 4096 in across) == ("4 GB above the baseline" in texts(figure)) == memory
    (left, right), (bottom, top) = figure.axes[0].get_xlim(), figure.axes[0].get_ylim()
    assert all(left <= second <= right for second in down)
    assert all(bottom <= mib <= top for mib in across)
    # Apart without colour: baseline, start and finish, limits.
    assert across[600.0] == ":"
    assert {down[0.0], down[runtime_s]} == {"-."}
    assert {down.get(45.0, "--"), across.get(4696.0, "--")} == {"--"}


def test_limits_that_a_challenge_has_not_are_not_drawn() -> None:
    figure = draw(**case(90.0, 5000.0) | {"limits": CaseLimits(timeout_s=60.0)})
    assert [list(lines) for lines in lines_at(figure.axes[0])] == [[600.0], [0.0, 90.0]]


def test_memory_ticks_are_powers_of_two() -> None:
    for peak_mib, step in ((300.0, 256), (2000.0, 512), (5000.0, 1024), (70000.0, 16384)):
        axes = draw(**case(20.0, peak_mib)).axes[0]
        ticks = axes.get_yticks()
        assert set(np.diff(ticks)) == {step}
        in_gib = axes.child_axes[0].yaxis.get_major_locator()()
        assert set(np.diff(in_gib)) == {step / 1024}


def test_a_case_without_gpu_use_can_be_drawn() -> None:
    idle = replace(VRAM, baseline_mib=0.0, peak_vram_mib=0.0, area_mib_s=0.0)
    given = case(20.0, 0.0) | {"curve": curve([-1.0, 21.0], [0.0, 0.0]), "vram": idle}
    figure = draw(**given | {"limits": CaseLimits(timeout_s=60.0)})
    assert "peak 0 MiB above the baseline, at 0.0 s" in texts(figure)


def test_ends_are_interpolated() -> None:
    t_s, used_mib = during_run(np.array([-1.0, 1.0, 3.0]), np.array([0.0, 10.0, 30.0]), 2.0)
    assert t_s.tolist() == [0.0, 1.0, 2.0]
    assert used_mib.tolist() == [5.0, 10.0, 20.0]


def test_a_long_curve_keeps_its_peak_in_the_figure() -> None:
    t_s = np.arange(-1, 3602, 0.02)
    used_mib = np.full(t_s.size, BASELINE_MIB)
    used_mib[100_000] = 5000.0
    axes = draw(**case(3600.0, 4400.0) | {"curve": curve(t_s, used_mib)}).axes[0]
    y = np.asarray(axes.lines[0].get_ydata(), float)
    assert y.size < 5 * COLUMNS
    assert y.max() == 5000.0
    assert np.asarray(axes.collections[0].get_paths()[0].vertices)[:, 1].max() == 5000.0


def test_case_names_are_shown_as_they_are() -> None:
    figure = draw(**case(20.0, 2000.0) | {"name": "a_$b$_%"})
    assert figure.texts[0].get_text() == "a_$b$_%"
    assert not figure.texts[0].get_parse_math()


def test_the_png_can_be_read_and_has_colour_and_ink() -> None:
    picture = Image.open(io.BytesIO(png(draw(**case(50.0, 5000.0)))))
    assert picture.size == (1200, 600)
    dark = np.asarray(picture.convert("L")) < 100
    assert 0.005 < dark.mean() < 0.1


def test_a_curve_without_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="no sample"):
        draw(**case(20.0, 2000.0) | {"curve": curve([], [])})
