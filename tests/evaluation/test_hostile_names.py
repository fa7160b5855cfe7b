"""Names of cases, teams and files, and what a submission prints, on their way to every destination.

Through the real commands; the HTML page is in tests/evaluation/report/test_hostile.py.
"""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.nnunet_models import ROOT
from tests.submissions import lesion, save

pytestmark = pytest.mark.slow
ESCAPES = "\x1b[31m\x1b]0;title\x07\x9b2J\u202e\r"
# No slash: these are names of files. A formula, a cell's and a line's end, markup, no UTF-8.
NAME = "=cmd|'C'!A0,\"" + f"\n| x |{ESCAPES}<b>[a](b)$x$\\input{{x}}%&" + os.fsdecode(b"\xff")
SECOND = "@" + NAME[1:]
# Fails in the second case, after it has said what it can, and left a file that was not asked for.
SCRIPT = """
printf '%s\\n' "$said"
touch "outputs/$named"
for scan in inputs/*; do name=$(basename "$scan" _0000.nii.gz); done
case $name in @*) printf '%s' "$said"; exit 3;; esac
cp "$mask" "outputs/$name.nii.gz"
"""


@dataclass(frozen=True)
class Results:
    """What the commands printed, one after the other, and where they wrote."""

    folder: Path
    printed: tuple[str, ...]

    def files(self, pattern: str) -> Iterator[Path]:
        found = list(self.folder.rglob(pattern))
        assert found
        yield from found


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Two teams of hostile names are run on two cases of hostile names, ranked and reported."""
    folder = tmp_path_factory.mktemp("hostile")
    for name in (NAME, SECOND):
        save(folder / "cases" / f"{name}_0000.nii.gz", lesion())
        save(folder / "labels" / f"{name}.nii.gz", lesion())
    (folder / "predict.sh").write_text(SCRIPT)
    mask = folder / "labels" / f"{NAME}.nii.gz"
    variables = {
        "said": f"{ESCAPES}\n=1+1 {ESCAPES}",
        "named": f"=x{ESCAPES}\nfile",
        "mask": str(mask),
    }
    environment = {**os.environ, **variables, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    given = ["--cases", folder / "cases", "--labels", folder / "labels"]
    output = folder / "results"
    runs = [
        ["run", "--command", "sh predict.sh", *given, "--output", output / team]
        for team in (NAME, "good")
    ]
    labels = ["--predictions", folder / "labels", "--labels", folder / "labels"]
    calls = [
        *runs,
        ["rank", output, "--without-gpu"],
        ["report", output],
        ["score", *labels, "--output", output],
    ]
    printed = []
    for call in calls:
        words = [sys.executable, "-m", "evaluation", *map(str, call)]
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, check=False)
        assert done.stderr == b""
        assert done.returncode == (1 if call[0] == "run" else 0)
        printed.append(done.stdout.decode("ascii"))
    return Results(output, tuple(printed))


def test_a_terminal_gets_nothing_that_it_acts_on(results: Results) -> None:
    for text in (*results.printed, *(path.read_text() for path in results.files("*.log"))):
        assert text.replace("\n", "").replace("\t", "").isprintable()


def test_a_case_is_a_line_of_the_progress(results: Results) -> None:
    for text in results.printed[:2]:
        lines = [line for line in text.splitlines() if line.startswith("[  ")]
        assert len(lines) == 2
        assert "=cmd" in lines[0]
        assert "@cmd" in lines[1]
        assert "nonzero_exit" in lines[1]
        assert "=1+1" in lines[1]


def test_no_cell_of_a_csv_file_is_a_formula(results: Results) -> None:
    names: set[str] = set()
    for path in results.files("*.csv"):
        head, *rows = csv.reader(path.read_text().splitlines())
        assert rows
        for row in rows:
            assert len(row) == len(head)
            names.update(cell[:5] for cell in row)
            for cell in row:
                assert cell.isprintable()
                assert not cell.startswith(("=", "+", "@", "\t"))
                assert not cell.startswith("-") or float(cell) <= 0
    assert {"'=cmd", "'@cmd"} <= names


def test_a_cell_of_a_markdown_table_is_one(results: Results) -> None:
    for path in results.files("*.md"):
        for table in re.findall(r"(?:^\|.*\n)+", path.read_text(), re.MULTILINE):
            bars = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
            assert len(bars) == 1
        text = path.read_text()
        assert r"\<b>\[a](b)\$x\$\\input" in text or "=cmd" not in text
        assert text.replace("\n", "").isprintable()


def test_a_cell_of_a_latex_table_is_one(results: Results) -> None:
    for path in results.files("*.tex"):
        text = path.read_text()
        assert r"\textless{}b\textgreater{}{[}a](b)\$x\$\textbackslash{}input\{x\}\%\&" in text
        assert text.replace("\n", "").isprintable()


def test_nothing_is_lost(results: Results) -> None:
    assert sorted(path.name for path in results.folder.iterdir() if path.is_dir()) == sorted(
        ["good", "ranking", NAME]
    )
    cases = [path.name for path in results.files("cases/*.json")]
    assert sorted(cases) == sorted(2 * [f"{NAME}.json", f"{SECOND}.json"])
    assert "cmd|" in (results.folder / "report.html").read_text()
