"""The app with what was left out of torch: the same masks, and no harm if something is needed."""

from __future__ import annotations

import gc
import json
import os
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from app.lean import start as lean_start
from app.lean.stand_ins import StandIns, Surprise
from app.lean.start import Progress
from app.model import LesionFilter, ModelConfig
from tests.app.conftest import python, scan
from tests.app.lean.conftest import Started
from tests.app.small_model import CONFIG, NETWORK, with_channels, write_model

TWO = with_channels(2)
MODELS: dict[str, ModelConfig] = {
    "plain": CONFIG,
    "filtered": replace(CONFIG, lesion_filter=LesionFilter(0.05, 0.6, "none")),
    "residual": replace(
        TWO,
        network=replace(TWO.network, name="ResidualEncoderUNet", heads=3),
        labels=("a", "b", "c"),
        region_values=(1, 2, 3),
        transpose=(2, 0, 1),
    ),
    "classes": replace(CONFIG, network=replace(NETWORK, heads=4), labels=("0", "1", "2", "3")),
}
OPTIONS: dict[str, list[str]] = {
    "default": [],
    "tta": ["--tta"],
    "step": ["--step-size", "0.3"],
    "body": ["--crop-to-body"],
    "time": ["--time-budget", "1000"],
    "budget": ["--vram-budget", "1000"],
    "exact": ["--exact"],
}
AGAIN = re.compile(
    r"warning: torch was imported without something that is needed \((.+)\); beginning anew with "
    r"all of it \(python -m app.lean.find finds out again what can be left out\)"
)


def files(folder: Path, suffix: str, config: ModelConfig) -> Path:
    for channel in range(len(config.channels)):
        scan(folder / f"X_{channel:04}{suffix}", channel)
    return folder


def written(tmp_path: Path, name: str) -> Path:
    members = 2 if name == "residual" else 1
    changes = {k: v for k, v in vars(MODELS[name]).items() if k != "members"}
    return write_model(tmp_path / "models" / name, members=members, **changes)


@pytest.fixture
def given(tmp_path: Path) -> list[object]:
    """The plain model and a scan for it."""
    scans = files(tmp_path / "scans", ".nii.gz", CONFIG)
    return ["--model", written(tmp_path, "plain"), "--input", scans]


def leave_out(app: Path, copy: Path, needed: str) -> Path:
    """A copy of the app that is told to leave out what is ``needed``, too."""
    shutil.copytree(app, copy)
    file = copy / "app/lean/left_out.json"
    found = json.loads(file.read_text())
    found["left_out"][needed] = []
    file.write_text(json.dumps(found))
    return copy


@pytest.mark.slow
def test_half_of_the_import_and_more_is_left_out(searched: tuple[Path, str]) -> None:
    found = re.fullmatch(
        r"lean import: torch (\S+) without (\d+) of its modules takes (\S+) CPU seconds "
        r"instead of (\S+) \(found in \d+ s\)\n",
        searched[1],
    )
    assert found
    assert int(found[2]) > 300
    content = json.loads((searched[0] / "app/lean/left_out.json").read_text())
    assert content["torch"] == found[1]
    assert len(content["left_out"]) == int(found[2])
    assert content["left_out"].keys() & {"torch", "torch.cuda", "torch.nn.functional"} == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "option"),
    [*(("plain", option) for option in OPTIONS), *((name, "tta") for name in MODELS)],
)
def test_masks_are_the_same(
    name: str, option: str, lean_app: Path, start: Started, tmp_path: Path
) -> None:
    model = written(tmp_path, name)
    scans = files(tmp_path / "scans", ".nii.gz", MODELS[name])
    given = ["--model", model, "--input", scans, *OPTIONS[option]]
    streams = []
    for full in (False, True):
        code, _, err = start(lean_app, *given, "--output", tmp_path / f"{full}", full=full)
        assert code == 0
        streams.append(err)
    assert streams[0] == streams[1]
    masks = [(tmp_path / f"{full}" / "X.nii.gz").read_bytes() for full in (False, True)]
    assert masks[0] == masks[1]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_other_formats(suffix: str, lean_app: Path, start: Started, tmp_path: Path) -> None:
    scans = files(tmp_path / "scans", suffix, CONFIG)
    given = ["--model", written(tmp_path, "plain"), "--input", scans, "--output", tmp_path / "out"]
    code, _, err = start(lean_app, *given)
    assert (code, err) == (0, [])


def modules(lean_app: Path, given: list[object], output: Path, *more: str) -> set[str]:
    """What is imported in a run on NIfTI, stand-ins apart."""
    arguments = [*map(str, given), f"--output={output}", *more]
    code = (
        "import sys; from app.__main__ import main; from app.lean.stand_ins import _StandIn\n"
        "from app.lean.start import Progress\n"
        f"assert main({[*arguments, '--device=cpu']!r}, Progress()) == 0\n"
        "print(*[n for n, m in sys.modules.items() if not isinstance(m, _StandIn)])"
    )
    done = python("-c", code, cwd=lean_app)
    return set(done.stdout.splitlines()[-1].split())


HEAVY = {"torch._meta_registrations", "torch.export", "torch._refs", "torch.fx.graph"}


@pytest.mark.slow
def test_what_is_left_out_is_not_imported(
    lean_app: Path, given: list[object], tmp_path: Path
) -> None:
    assert modules(lean_app, given, tmp_path / "out") & HEAVY == set()


@pytest.mark.slow
def test_exact_imports_all_of_torch(lean_app: Path, given: list[object], tmp_path: Path) -> None:
    assert modules(lean_app, given, tmp_path / "out", "--exact") >= HEAVY


@pytest.mark.slow
@pytest.mark.parametrize(
    "needed",
    [
        "torch.__future__",  # a Surprise when weights are converted
        "torch._tensor",  # an error while torch is imported
        "torch.nn.modules.container",  # one while the network is built
    ],
)
def test_something_is_needed_after_all(
    needed: str, lean_app: Path, given: list[object], start: Started, tmp_path: Path
) -> None:
    broken = leave_out(lean_app, tmp_path / "copy", needed)
    code, out, err = start(broken, *given, "--output", tmp_path / "out")
    assert code == 0
    assert len(err) == 1
    assert AGAIN.fullmatch(err[0])
    assert out[-1].startswith("X: read ")
    code, _, err = start(lean_app, *given, "--output", tmp_path / "right", full=True)
    assert (code, err) == (0, [])
    assert (tmp_path / "out/X.nii.gz").read_bytes() == (tmp_path / "right/X.nii.gz").read_bytes()
    assert [f.name for f in (tmp_path / "out").iterdir()] == ["X.nii.gz"]


def surprised_at(case: str, app: Path, copy: Path, seconds: float = 0.0) -> Path:
    """A copy of the app that misses something when it comes to ``case``, so much later."""
    shutil.copytree(app, copy)
    file = copy / "app/predict.py"
    line = "        dtype, clock = numpy_dtype("
    surprise = f"""\
        import time
        from app.lean import start
        if start._stand_ins is not None and output.name.startswith({case!r}):
            time.sleep({seconds})
            start._stand_ins.touch("made.up")
"""
    text = file.read_text()
    assert text.count(line) == 1
    file.write_text(text.replace(line, surprise + line))
    return copy


@pytest.mark.slow
def test_cases_that_are_done_are_not_done_again(
    lean_app: Path, start: Started, tmp_path: Path
) -> None:
    """Nor are they charged to the case at which it began anew."""
    for name in "abc":
        scan(tmp_path / "scans" / f"{name}.nii.gz")
    (tmp_path / "scans" / "broken.nii.gz").write_bytes(b"no scan")
    given = ["--model", written(tmp_path, "plain"), "--input", tmp_path / "scans"]
    copy = surprised_at("c", lean_app, tmp_path / "copy", 4.0)
    code, out, err = start(copy, *given, "--time-budget", "7", "--output", tmp_path / "out")
    assert code == 1  # of the scan that is none
    assert [line.split(":")[0] for line in out if ": read" in line] == ["a", "b", "c"]
    assert sum(line.startswith("error: ") for line in err) == 1
    assert sum(AGAIN.fullmatch(line) is not None for line in err) == 1
    assert not any("starting again" in line for line in err)
    assert start(lean_app, *given, "--output", tmp_path / "right", full=True)[0] == 1
    for name in ("a", "b", "c"):
        masks = [(tmp_path / d / f"{name}.nii.gz").read_bytes() for d in ("out", "right")]
        assert masks[0] == masks[1]


@pytest.mark.slow
def test_time_that_is_lost_counts(
    lean_app: Path, given: list[object], start: Started, tmp_path: Path
) -> None:
    """Of the case at which it begins anew, and of the process for the first one."""
    copy = surprised_at("X", lean_app, tmp_path / "copy", 3.0)
    code, _, err = start(copy, *given, "--output", tmp_path / "out", "--time-budget", "3")
    assert code == 0
    assert re.search(r"X_0000.nii.gz: done \d\.\d s after the time budget$", err[-1])


@pytest.mark.slow
def test_it_is_not_asked_for_what_exact_needs(
    lean_app: Path, given: list[object], start: Started, tmp_path: Path
) -> None:
    broken = leave_out(lean_app, tmp_path / "copy", "torch._tensor")
    code, _, err = start(broken, *given, "--exact", "--output", tmp_path / "out")
    assert (code, err) == (0, [])


@pytest.mark.parametrize(
    "content",
    [
        '{"torch": "1.0", "python": "3.11.7", "left_out": {"torch._tensor": []}}',
        '{"left_out": {"torch._tensor": []}}',
        "[]",
        "{",
        "",
    ],
)
def test_a_list_for_another_torch_or_none_is_all_of_torch(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "left_out.json"
    monkeypatch.setattr(lean_start, "FOUND", file)
    assert lean_start.left_out() == {}
    file.write_text(content)
    assert lean_start.left_out() == {}
    file.write_text(json.dumps({**lean_start.built_for(), "left_out": {"torch._tensor": []}}))
    assert lean_start.left_out() == {"torch._tensor": []}


def test_the_version_is_that_of_the_installed_torch() -> None:
    import torch

    assert lean_start.built_for()["torch"] == torch.__version__


def test_while_torch_is_imported_other_threads_have_their_turn() -> None:
    before = sys.getswitchinterval(), gc.isenabled()
    with lean_start.torch_import(lean=False):
        assert sys.getswitchinterval() < before[0] / 10
        assert not gc.isenabled()
    assert (sys.getswitchinterval(), gc.isenabled()) == before
    with pytest.raises(ImportError), lean_start.torch_import(lean=False):
        raise ImportError("no torch")
    assert (sys.getswitchinterval(), gc.isenabled()) == before


class Began(Exception):
    pass


@pytest.fixture
def anew(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The command lines that a process would begin anew with."""
    lines: list[list[str]] = []

    def execv(program: str, arguments: list[str]) -> None:
        assert program == arguments[0] == sys.executable
        lines.append(arguments[1:])
        raise Began

    monkeypatch.setattr("os.execv", execv)
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-B", "-m", "app", "--input", "a b"])
    for name in ("FULL_IMPORT", "PROGRESS_BEFORE_FULL_IMPORT"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    return lines


def test_a_process_begins_anew_with_what_it_was_called_with(anew: list[list[str]]) -> None:
    def main(progress: Progress) -> int:
        assert progress == Progress()
        progress.under_way, progress.began_s, progress.exit_code = "mask", 12.5, 1
        raise Surprise("torch.x")

    with pytest.raises(Began):
        lean_start.or_all_over_again(main)
    assert anew == [["-B", "-m", "app", "--input", "a b"]]
    assert os.environ["FULL_IMPORT"] == "1"
    assert Progress.before() == Progress("mask", 12.5, 1, again=True)


@pytest.mark.parametrize("content", [None, "", "1", "[]", "{", '{"unknown": 1}'])
def test_without_a_process_before_there_is_no_progress(
    content: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PROGRESS_BEFORE_FULL_IMPORT", raising=False)
    if content is not None:
        monkeypatch.setenv("PROGRESS_BEFORE_FULL_IMPORT", content)
    assert Progress.before() == Progress()


def test_it_does_so_for_a_surprise_that_a_library_kept_to_itself(
    anew: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_ins = StandIns({})
    monkeypatch.setattr(lean_start, "_stand_ins", stand_ins)
    assert lean_start.or_all_over_again(lambda _: 1) == 1
    stand_ins.surprise = Surprise("torch.x")
    with pytest.raises(Began):
        lean_start.or_all_over_again(lambda _: 0)
    with pytest.raises(Surprise, match=r"torch\.x"):
        lean_start.reconsider(RuntimeError("what C++ has made of it"))

    def main(progress: Progress) -> int:
        raise RuntimeError("what C++ has made of it")

    with pytest.raises(Began):
        lean_start.or_all_over_again(main)
    assert len(anew) == 2


@pytest.mark.usefixtures("anew")
@pytest.mark.parametrize("kind", [TypeError, AttributeError, ImportError, NotImplementedError])
def test_an_error_that_a_stand_in_leads_to(
    kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    lean_start.reconsider(kind("with all of torch"))
    monkeypatch.setattr(lean_start, "_stand_ins", StandIns({}))
    with pytest.raises(Surprise, match=kind.__name__):
        lean_start.reconsider(kind("without"))
    lean_start.reconsider(MemoryError("of its own"))
    lean_start.reconsider(ValueError("of its own"))
