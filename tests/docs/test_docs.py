"""What the docs say of the code is what the code says of itself, and every link leads somewhere."""

import re
from pathlib import Path

import pytest

from app.model import LesionFilter, Member, ModelConfig, Normalization
from docs import generate
from evaluation.__main__ import COMMANDS
from evaluation.gpu.curve_file import COLUMNS
from evaluation.record import Usage, Vram
from evaluation.scoring.assess import Accuracy

# The docs' own links are checked when the site is built (`make lint`).
LINKING = [path for path in generate.ROOT.glob("*.md")] + [generate.ROOT / "weights/README.md"]


@pytest.mark.parametrize("name", generate.PAGES)
def test_the_reference_shows_the_options_that_there_are(name: str) -> None:
    written = (generate.REFERENCE / f"{name}.md").read_text()
    assert written == generate.page(name), "`make docs` writes it anew"


def test_every_page_and_every_command_of_the_harness_is_there() -> None:
    assert {path.stem for path in generate.REFERENCE.glob("*.md")} == set(generate.PAGES)
    _, commands = generate.PAGES["evaluation"]
    assert {f"evaluation {name}" for name in COMMANDS} <= set(commands)


@pytest.mark.parametrize("path", LINKING, ids=lambda path: str(path.relative_to(generate.ROOT)))
def test_links_lead_to_files(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text())
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (path.parent / target).exists()] == []


def test_every_defence_names_tests_that_there_are() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (generate.ROOT / "SECURITY.md").read_text())
    assert len(named) > 20
    text = {file: (generate.ROOT / file).read_text() for file, _ in named}
    assert [(file, test) for file, test in named if f"def {test}(" not in text[file]] == []


@pytest.mark.parametrize(
    "kind", [ModelConfig, Normalization, Member, LesionFilter, Usage, Vram, Accuracy]
)
def test_every_field_of_a_format_is_described(kind: type) -> None:
    text = (generate.ROOT / "docs/formats.md").read_text()
    # Of several classes each is a column of its own.
    names = [name for name in kind.__annotations__ if name != "classes"]
    assert [name for name in names if f"`{name}`" not in text] == []


def test_every_column_of_a_curve_is_described() -> None:
    text = (generate.ROOT / "docs/formats.md").read_text()
    assert [name for name in COLUMNS if f"`{name}`" not in text] == []
