import re
from typing import Any

import pytest

from evaluation.challenges import CaseLimits
from evaluation.tables import results
from tests.evaluation.challenges import FLARE24


def markdown(rows: list[dict[str, Any]], limits: CaseLimits = FLARE24.limits) -> str:
    return results.markdown(rows, limits)


def latex(rows: list[dict[str, Any]]) -> str:
    return results.latex(rows, FLARE24.limits)


# The columns that a measured case has, in the state of one that never came to run.
NOTHING: dict[str, object] = dict.fromkeys(
    (
        "dsc",
        "nsd",
        "runtime_s",
        "wall_s",
        "flare_time_s",
        "cpu_s",
        "peak_ram_mib",
        "peak_vram_mib",
        "area_mib_s",
        "flare_max_gpu_mb",
        "flare_auc_gpu_time",
        "contaminated",
    )
)


def row(case: str, status: str = "ok", **values: object) -> dict[str, object]:
    size = {"size_x": 512, "size_y": 512, "size_z": 55}
    return {"case": case, "status": status, **size, **NOTHING, **values}


def measured(case: str, status: str = "ok", **values: object) -> dict[str, object]:
    gpu = {"peak_vram_mib": 1000.0, "area_mib_s": 9000.0, "contaminated": ""}
    flare = {"flare_time_s": 11.26, "flare_max_gpu_mb": 1600.0, "flare_auc_gpu_time": 16000.0}
    score = {"dsc": 0.5, "nsd": 0.25, "runtime_s": 10.0, "wall_s": 11.26}
    return row(case, status, **(score | gpu | flare | values))


def cells(text: str, first: str) -> list[str]:
    """The cells of the one line of a Markdown table that begins with the words given."""
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    (found,) = [line for line in lines if line[0].strip() == first]
    return [cell.strip() for cell in found[1:]]


THREE = [
    measured("a", dsc=0.9, flare_time_s=10.0, peak_vram_mib=4096.0, flare_max_gpu_mb=4700.0),
    measured("b", dsc=0.6, flare_time_s=45.0, peak_vram_mib=5000.0, flare_max_gpu_mb=5600.0),
    row("c", "timeout", dsc=0.0, nsd=0.25, runtime_s=10.0, flare_time_s=100.0),
]


def test_the_table_of_cases_is_that_of_the_papers() -> None:
    text = markdown([measured("0001"), measured("0051", size_z=100, flare_time_s=18.854)])
    assert text.startswith(
        "**Table 1. Running time and GPU memory of every case, as the organisers count.**\n\n"
        "| Case ID | Image Size | Running Time (s) | Max GPU (MB) | Total GPU (MB) |\n"
        "|---|---:|---:|---:|---:|\n"
        "| 0001 | (512, 512, 55) | 11.26 | 1600 | 16000 |\n"
        "| 0051 | (512, 512, 100) | 18.85 | 1600 | 16000 |\n\n"
        "Running Time is the wall time around the whole container."
    )
    assert "organisers' figures" in text


def test_what_was_not_measured_is_never_0() -> None:
    text = markdown([row("a", flare_time_s=3.0, runtime_s=2.0, dsc=0.5, nsd=0.5)])
    assert cells(text, "a") == ["(512, 512, 55)", "3.00", "not measured", "not measured"]
    for name in ("Peak GPU above the baseline (MiB)", "Organisers' total GPU (MB)"):
        assert cells(text, name) == ["not measured", "not measured", "0 of 1"]
    assert cells(text, "Beyond 45 s (organisers' running time)") == ["0 of 1"]
    for name in (
        "Beyond 4 GB (peak above the baseline, 4096 MiB)",
        "Beyond 4 GB (organisers' max GPU, 4096 MB)",
        "Contaminated measurements of the GPU",
    ):
        assert cells(text, name) == ["not measured"]


def test_only_failed_cases_have_a_state() -> None:
    assert "Failure" not in markdown([measured("a")])
    text = markdown(THREE)
    assert cells(text, "Case ID")[-1] == "Failure"
    assert [cells(text, name)[-1] for name in "abc"] == ["", "", "timeout"]


def test_contaminated_measurements_are_marked() -> None:
    assert "†" not in markdown(THREE)
    text = markdown([measured("a"), measured("b", contaminated="pid 7 used the GPU"), THREE[2]])
    assert cells(text, "a")[2:] == ["1600", "16000", ""]
    assert cells(text, "b")[2:] == ["1600†", "16000†", ""]
    assert "\n† Contaminated: another process used the GPU" in text
    assert cells(text, "Contaminated measurements of the GPU") == ["1 of 2"]


def test_the_summary_by_hand() -> None:
    text = markdown(THREE)
    assert "**Table 2. Summary of 3 cases.**" in text
    # Deviations 40, 10 and -50: sqrt((1600 + 100 + 2500) / 2).
    assert cells(text, "DSC (%)") == ["50.00 ± 45.83", "60.00 (30.00, 75.00)", "3"]
    assert cells(text, "NSD (%)") == ["25.00 ± 0.00", "25.00 (25.00, 25.00)", "3"]
    # How long the case took that failed is no merit of its team.
    assert cells(text, "Running time (s)") == ["10.00 ± 0.00", "10.00 (10.00, 10.00)", "2 of 3"]
    # 55 / 2; 35 / sqrt(2).
    organisers = ["27.50 ± 24.75", "27.50 (18.75, 36.25)", "2 of 3"]
    assert cells(text, "Organisers' running time (s)") == organisers
    # 904 / sqrt(2).
    peak = ["4548.0 ± 639.2", "4548.0 (4322.0, 4774.0)", "2 of 3"]
    assert cells(text, "Peak GPU above the baseline (MiB)") == peak
    assert "n - 1" in text
    assert "interpolated linearly" in text


def test_one_case_has_no_deviation() -> None:
    text = markdown([measured("a", dsc=0.123456)])
    assert cells(text, "DSC (%)") == ["12.35 ± n/a", "12.35 (12.35, 12.35)", "1"]
    assert "n/a for a single case" in text


def test_failures_and_limits_are_counted() -> None:
    rows = [*THREE, measured("d", "oom_vram", dsc=0.0), row("e", "infra_error"), THREE[2]]
    text = markdown(rows)
    for name, count in (("All", 6), ("Failed", 4), ("Failed: timeout", 2)):
        assert cells(text, name) == [str(count)]
    assert cells(text, "Failed: oom_vram") == cells(text, "Failed: infra_error") == ["1"]
    assert "in no mean" in text
    assert "in no mean" not in markdown(THREE)
    assert cells(text, "DSC (%)")[-1] == "5 of 6", "an infra_error has no score"
    # Exactly 45 s and 4096 MiB are within the limits.
    assert cells(text, "Beyond 45 s (organisers' running time)") == ["2 of 5"]
    assert cells(text, "Beyond 4 GB (peak above the baseline, 4096 MiB)") == ["1 of 3"]
    assert cells(text, "Beyond 4 GB (organisers' max GPU, 4096 MB)") == ["2 of 3"]
    assert cells(markdown([measured("a")]), "Failed") == ["0"]


def test_limits_that_a_challenge_has_not_are_not_counted() -> None:
    text = markdown(THREE, CaseLimits(timeout_s=60.0, time_s=7.5))
    assert cells(text, "Beyond 7.5 s (organisers' running time)") == ["3 of 3"]
    assert "GB" not in text
    assert "Beyond" not in markdown(THREE, CaseLimits(timeout_s=60.0))


def test_scores_alone_have_no_table_of_cases() -> None:
    rows = [{"case": "a", "status": "ok", "dsc": 0.5, "nsd": 0.5, "size_x": 1}]
    text = markdown(rows)
    assert text.startswith("**Table 1. Summary of 1 case.**")
    assert "GPU" not in text
    assert "time" not in text
    assert "not measured" not in text
    assert "longtable" in latex(rows)


def test_without_rows_there_are_headings() -> None:
    assert cells(markdown([]), "All") == ["0"]
    assert "\\bottomrule" in latex([])


def test_markdown_is_escaped() -> None:
    text = markdown([measured("_a_b|c*d`<e>[f](g)\\_$1$ &lt; https://h www.i")])
    (line,) = [line for line in text.splitlines() if "a_b" in line]
    assert line.startswith(r"| \_a_b\|c\*d\`\<e>\[f](g)\\\_\$1\$ \&lt; https\://h www\.i |")


def test_latex_is_escaped() -> None:
    text = latex([measured(r"[x]_100%&#{}~^\<>")])
    line = next(line for line in text.splitlines() if line.startswith("{[}x"))
    assert line == (
        r"{[}x]\_100\%\&\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}"
        r"\textless{}\textgreater{} & (512, 512, 55) & 11.26 & 1600 & 16000 \\"
    )


@pytest.mark.parametrize(
    "rows", [THREE, [measured("a", contaminated="x")], [row("a", "infra_error")], []]
)
def test_latex_is_well_formed(rows: list[dict[str, Any]]) -> None:
    text = latex(rows)
    assert text.startswith("% needs \\usepackage{booktabs,longtable}\n")
    assert text.isascii(), "no engine needs a font for it"
    for rule in ("toprule", "midrule", "bottomrule", "caption", "endfirsthead", "endhead"):
        assert rule in text
    unescaped = re.sub(r"\\[{}$&#_%]", "", text)
    assert unescaped.count("{") == unescaped.count("}")
    assert unescaped.count("$") % 2 == 0
    assert unescaped.count("%") == 1, "the comment"
    tables = re.findall(r"\\begin\{longtable\}\{(l r*)\}(.*?)\\end\{longtable\}", text, re.S | re.X)
    assert len(tables) == (3 if rows else 2)
    for columns, body in tables:
        lines = [line for line in re.sub(r"\\&", "", body).splitlines() if " & " in line]
        assert lines
        assert all(line.count("&") == len(columns) - 1 for line in lines)
        assert all(line.endswith(r" \\") for line in lines)


def test_latex_and_markdown_say_the_same() -> None:
    ours, theirs = markdown(THREE), latex(THREE)
    for value in ("50.00", "45.83", "60.00 (30.00, 75.00)", "4548.0", "1 of 2", "timeout"):
        assert value in ours
        assert value in theirs
    assert r"50.00 $\pm$ 45.83" in theirs
    assert r"MiB$\cdot$s" in theirs


def test_lesions_and_healthy_cases_are_summed_up() -> None:
    def case(
        name: str, reference: float, predicted: float | None, f1: float | None
    ) -> dict[str, object]:
        masks = {"reference_ml": reference, "predicted_ml": predicted, "lesion_f1": f1}
        return {"case": name, "status": "ok", "dsc": 1.0, "nsd": 1.0, **masks}

    healthy = [case("a", 0.0, 0.0, None), case("b", 0.0, 0.3, 0.0), case("c", 0.0, 0.0, None)]
    failed = {**case("d", 0.0, None, 0.0), "status": "timeout", "dsc": 0.0, "nsd": 0.0}
    text = markdown([*healthy, case("e", 2.0, 1.0, 0.5), failed])
    assert cells(text, "False-positive rate of healthy cases") == ["0.500 (4 cases, 1 failed)"]
    assert cells(text, "False-positive volume a healthy case (ml)") == ["0.10"]
    # 0, 0.5 and 0, of five cases.
    assert cells(text, "Lesion-wise F1") == ["0.167 ± 0.289", "0.000 (0.000, 0.250)", "3 of 5"]
    assert "share a voxel" in text
    assert "no healthy case" in markdown([case("e", 2.0, 1.0, 0.5)])
