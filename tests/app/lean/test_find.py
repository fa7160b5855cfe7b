"""app.lean.find: what comes back, and when nothing is left out; trials are made up."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from app.lean import find, start
from app.lean.find import SearchError, Trial
from app.lean.start import built_for

LeftOut = Mapping[str, Sequence[str]]
IMPORTS = [
    ("torch", ""),
    ("torch.nn", "torch"),
    ("torch.a", "torch"),
    ("torch.a.b", "torch.a"),
    ("torch.c", "torch.a"),
    ("torchgen", "torch.c"),
    ("torch.cuda.x", "torch"),
]
FULL = Trial(results={"one": "1", "two": "2"}, imports=IMPORTS, seconds=2.0)
DONE = Trial(results=FULL.results, seconds=1.0)


def trials(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[LeftOut], Trial]
) -> list[dict[str, Sequence[str]]]:
    tried: list[dict[str, Sequence[str]]] = []

    def attempt(left_out: LeftOut) -> Trial:
        tried.append(dict(left_out))
        return answer(left_out)

    monkeypatch.setattr(find, "attempt", attempt)
    return tried


def test_all_goes_but_what_a_gpu_goes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = trials(monkeypatch, lambda _: DONE)
    left_out, trial = find.search(FULL)
    assert tried == [left_out]
    assert trial == DONE
    # Each with what it was the first to import.
    assert left_out == {
        "torch.a": ["torch.a.b", "torch.c"],
        "torch.a.b": [],
        "torch.c": ["torchgen"],
        "torchgen": [],
    }


def test_what_is_asked_for_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(left_out: LeftOut) -> Trial:
        if "torch.c" in left_out:
            return Trial(error="TypeError", needed=["torch.c"])
        return Trial(needed=["torch.a", "torchgen", "?"]) if "torchgen" in left_out else DONE

    tried = trials(monkeypatch, answer)
    left_out, _ = find.search(FULL)
    assert len(tried) == 3
    assert left_out == {"torch.a.b": []}


@pytest.mark.parametrize(
    ("trial", "message"),
    [
        (Trial(results={"one": "1", "two": "3"}), "results differ in two"),
        (Trial(error="no disk", needed=["torch"]), "a trial fails for something else: no disk"),
        (Trial(error="no disk"), "a trial fails for something else: no disk"),
    ],
)
def test_where_nothing_is_left_out(
    trial: Trial,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trials(monkeypatch, lambda left_out: trial if left_out else FULL)
    with pytest.raises(SearchError, match=message):
        find.search(FULL)
    found = tmp_path / "left_out.json"
    found.write_text("of an earlier torch")
    monkeypatch.setattr(find, "FOUND", found)
    assert find.main([]) == 1
    assert capsys.readouterr().err == f"lean import: nothing is left out: {message}\n"
    assert not found.exists()


def test_with_all_of_torch_it_must_go_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trials(monkeypatch, lambda _: Trial(error="RuntimeError: no such processor"))
    monkeypatch.setattr(find, "FOUND", tmp_path / "left_out.json")
    assert find.main([]) == 1
    assert "does not go through with all of torch: RuntimeError" in capsys.readouterr().err


def test_what_was_found_is_written_with_the_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials(monkeypatch, lambda left_out: DONE if left_out else FULL)
    monkeypatch.setattr(find, "FOUND", tmp_path / "left_out.json")
    assert find.main([]) == 0
    content = json.loads((tmp_path / "left_out.json").read_text())
    assert content == {**built_for(), "left_out": find.search(FULL)[0]}
    assert [f.name for f in tmp_path.iterdir()] == ["left_out.json"]


def test_a_folder_that_cannot_be_written_to_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trials(monkeypatch, lambda left_out: DONE if left_out else FULL)
    (tmp_path / "file").touch()
    monkeypatch.setattr(find, "FOUND", tmp_path / "file" / "left_out.json")
    assert find.main([]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lean import: nothing is left out: [Errno 17]")


def test_what_is_known_of_this_torch_is_not_searched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = trials(monkeypatch, lambda left_out: DONE if left_out else FULL)
    file = tmp_path / "left_out.json"
    for module in (find, start):
        monkeypatch.setattr(module, "FOUND", file)
    file.write_text(json.dumps({"torch": "1.0", "python": "3.11.0", "left_out": {"torch.a": []}}))
    for trials_so_far in (2, 2):
        assert find.main(["--if-needed"]) == 0
        assert len(tried) == trials_so_far
    assert find.main([]) == 0
    assert len(tried) == 4


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("", Trial(error="it ends without an answer (exit code -11)", needed=["torch.a"])),
        ('noise\n{"error": "KeyError", "needed": []}', Trial(error="KeyError", needed=["torch.a"])),
        ('{"needed": ["torch.b"]}', Trial(needed=["torch.b"])),
        ('{"results": {"one": "1"}}', Trial(results={"one": "1"})),
    ],
)
def test_a_trial_that_ends_badly_has_said_what_it_asked_for(
    printed: str, expected: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str], **given: Any) -> subprocess.CompletedProcess[str]:
        assert json.loads(given["input"]) == {"torch.a": ["torch.b"]}
        Path(command[-1]).write_text("torch.a    ")
        return subprocess.CompletedProcess(command, -11, printed, "")

    monkeypatch.setattr(subprocess, "run", run)
    assert find.attempt({"torch.a": ["torch.b"]}) == expected
