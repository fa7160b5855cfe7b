from dataclasses import replace

import pytest
from msgspec import structs

from benchmarks.sizes.record import Measurement
from benchmarks.sizes.report import Report, Setting
from benchmarks.sizes.targets import Target

STAGES = {"ready": 1, "read": 0, "preprocess": 0.5, "network": 30, "restore": 0.4, "write": 0.1}
ON_CPU = Setting(
    machine="Some CPU",
    on_gpu=False,
    scan="lung1",
    repeats=1,
    networks={"huang": "Huang's network"},
    slices=[119],
    programs=["app", "nnunet"],
    versions={"app": "v2", "nnunet": "2.8.1"},
    staged_slices=119,
)
ON_GPU = replace(ON_CPU, on_gpu=True, slices=[55, 554], staged_slices=55)


def run(program: str, slices: int, wall_s: float, mib: float, area: float = 0.0) -> Measurement:
    return Measurement(
        "huang",
        slices,
        program,
        0,
        wall_s=wall_s,
        peak_rss_mib=mib,
        peak_vram_mib=mib,
        area_mib_s=area,
        stages=STAGES if program == "app" else {},
        windows=27 if program == "app" else None,
        step=0.5 if program == "app" else None,
    )


CPU_RUNS = [
    run("app", 119, 32.0, 900),
    run("nnunet", 119, 100.0, 2000),
    Measurement("huang", 119, "nnunet-stages", 0, wall_s=90, stages={"network": 80.0}),
]


def rows(text: str, beginning: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith(f"| {beginning}")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def verdicts(text: str) -> list[tuple[str, str]]:
    return [(cells[3], cells[4]) for cells in rows(text, "huang, 512")]


def test_on_a_cpu() -> None:
    text = Report(ON_CPU, CPU_RUNS).text()
    assert text.startswith("Some CPU; app v2, nnU-Net 2.8.1; one cold process each")
    assert "largest resident set of any one process, which favours nnU-Net" in text
    assert "Area of GPU memory: not measured" in text
    (cells,) = rows(text, "119 x 2.5 mm")
    assert cells == [
        *("119 x 2.5 mm", "27", "0.5", "32.00", "100.00", "0.320"),
        *("1.00", "0.00", "0.50", "30.00", "0.40", "0.10"),
        *("900", "2000", "0.450"),
    ]
    assert "119 slices without the network: nnU-Net 20.00 s, app 2.00 s" in text
    assert verdicts(text) == [
        ("0.32x", "met"),
        ("0.1x", "met"),
        ("0.02x", "met"),
        ("0.45x", "met"),
    ]


def test_a_version_that_times_the_device_has_a_column_for_it() -> None:
    assert " | device | " not in Report(ON_CPU, CPU_RUNS).text()
    timed = structs.replace(CPU_RUNS[0], stages={**STAGES, "device": 0.75})
    text = Report(ON_CPU, [timed]).text()
    assert "| start-up | device | read |" in text
    assert rows(text, "119 x")[0][5:8] == ["", "1.00", "0.75"]


def test_what_was_not_measured_meets_nothing() -> None:
    text = Report(ON_CPU, CPU_RUNS[:1]).text()
    (cells,) = rows(text, "119 x 2.5 mm")
    assert cells[3:6] == ["32.00", "not measured", ""]
    assert {verdict for _, verdict in verdicts(text)} == {"not measured"}
    assert "without the network:" not in text


def test_failures_are_named() -> None:
    failed = Measurement("huang", 119, "nnunet", 0, error="exit code -9: Killed")
    text = Report(ON_CPU, [CPU_RUNS[0], failed]).text()
    assert rows(text, "119 x")[0][4] == "failed"
    assert "- huang 119 nnunet: failed: exit code -9: Killed" in text


def test_on_a_gpu() -> None:
    runs = [run("app", 554, 4.0, 1301, 2500), run("nnunet", 554, 24, 4600, 24000)]
    text = Report(ON_GPU, runs).text()
    short, long = rows(text, "55")
    assert short[3] == "not measured"
    assert long[-3:] == ["2500", "24000", "0.104"]
    assert verdicts(text) == [
        ("4 s", "met"),
        ("1301 MiB", "missed"),
        ("2500 MiB s", "met"),
        ("6x", "met"),
        ("9.6x", "missed"),
    ]
    assert [cells[2] for cells in rows(text, "huang, 512")][:3] == ["24.57 s", "4639 MB", "113978"]
    assert {cells[4] for cells in rows(text, "dkfz, 512")} == {"not measured"}


@pytest.mark.parametrize(
    ("value", "at_least", "expected"),
    [
        (5.0, False, "met"),
        (5.1, False, "missed"),
        (5.0, True, "met"),
        (4.9, True, "missed"),
        (None, True, "not measured"),
    ],
)
def test_verdicts(value: float | None, at_least: bool, expected: str) -> None:
    assert Target("x", 5.0, " s", value, at_least=at_least).verdict == expected


def test_the_step_that_one_repeat_had_to_take_is_shown() -> None:
    runs = [CPU_RUNS[0], structs.replace(CPU_RUNS[0], repeat=1, step=0.8, windows=12)]
    text = Report(replace(ON_CPU, repeats=2), runs).text()
    assert "medians of 2 cold processes" in text
    assert rows(text, "119 x 2.5 mm")[0][1:3] == ["12", "0.8"]
