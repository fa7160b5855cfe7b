"""What the file itself says, whoever reads it: its policy, its data, what it contains."""

import base64
import gzip
import hashlib
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from evaluation.report.document import ASSETS, NIIVUE

JSON = re.compile(r'<script type="application/json" id="overview">(.*?)</script>', re.DOTALL)


@pytest.fixture(scope="module")
def text(report: Path) -> str:
    return report.read_text(encoding="utf-8")


def hashed(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def block(text: str, name: str) -> str:
    (content,) = re.findall(f'<script type="text/plain" id="{name}">([^<]*)</script>', text)
    return gzip.decompress(base64.b64decode(content)).decode()


def test_the_policy_names_its_own_scripts_and_style_alone(text: str) -> None:
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    directives = dict(one.split(" ", 1) for one in policy.split("; "))
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    assert directives["default-src"] == "'none'"
    assert directives["script-src"].split() == [
        hashed(script),
        hashed(block(text, "viewer-script")),
    ]
    assert directives["style-src"] == hashed(style)
    assert "unsafe" not in policy


def test_the_file_names_no_other_place(text: str) -> None:
    markup = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert re.findall(r"\b(?:src|href|action)=[\"']?([^\"' >]*)", markup) == ["#content"]
    assert "url(" not in markup
    assert "@import" not in markup


def test_logs_are_kept_of_failures_alone(text: str, results: Path) -> None:
    details: dict[str, Any] = json.loads(block(text, "team-0"))
    states = dict(zip(details["columns"]["case"], details["columns"]["status"], strict=True))
    assert set(details["logs"]) == {name for name, state in states.items() if state != "ok"}


def test_facts_name_no_host(text: str) -> None:
    (overview,) = JSON.findall(text)
    facts = json.loads(overview)["teams"][0]["facts"]
    assert set(facts) == {"Image", "Engine", "Machine", "Harness", "GPU", "Driver"}


def test_niivue_is_what_its_readme_says() -> None:
    check = (NIIVUE / "README.md").read_text().split("```")[1]
    done = subprocess.run(
        ["sha256sum", "--check", "--strict"], input=check, cwd=NIIVUE, text=True, check=False
    )
    assert done.returncode == 0


def test_no_part_of_the_page_is_parsed_as_html() -> None:
    for path in ASSETS.glob("*.js"):
        script = path.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", script)
        assert len(script.splitlines()) < 400
