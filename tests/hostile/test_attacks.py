"""Attacks from inside a container, all of them in one run of the harness, on a real engine."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from evaluation.runners.docker import OWNER_LABEL
from tests import engine
from tests.hostile.attacks import ATTACKS, BROKEN, TRIED
from tests.submissions import lesion, save, write_cases

pytestmark = [pytest.mark.engine, pytest.mark.slow]

GOOD = "zz_good"  # the last of all: it must have its score whatever went before it
MEMORY_MIB, TIMEOUT_S = 128, 4
PREDICT = f"""
file=$(ls inputs | head -1); case=${{file%_0000.nii.gz}}; mask=outputs/$case.nii.gz
echo {TRIED}
. /attacks/$case
"""


@dataclass(frozen=True)
class Run:
    """What the harness came to. before: SHA-256 of the organisers' files."""

    folder: Path
    done: subprocess.CompletedProcess[bytes]
    before: dict[str, str]

    def record(self, case: str) -> dict[str, Any]:
        content = (self.folder / "results" / "cases" / f"{case}.json").read_text()
        found: dict[str, Any] = json.loads(content)
        return found


def digests(folder: Path) -> dict[str, str]:
    files = [path for name in ("scans", "labels") for path in (folder / name).iterdir()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Every attack as a case of one submission, and a good case after them."""
    with engine.in_use("docker"):
        folder = tmp_path_factory.mktemp("SECRET")
        context = folder / "image"
        (context / "attacks").mkdir(parents=True)
        for name, attack in ATTACKS.items():
            (context / "attacks" / name).write_text(attack.script + "\n")
        (context / "attacks" / GOOD).write_text("cp /attacks/mask.nii.gz $mask\n")
        save(context / "attacks" / "mask.nii.gz", lesion())
        (context / "predict.sh").write_text(PREDICT)
        (context / "Dockerfile").write_text(
            "ARG BASE_IMAGE=debian:bookworm-slim\nFROM ${BASE_IMAGE}\nWORKDIR /workspace\n"
            "COPY attacks /attacks\nCOPY predict.sh .\n"
        )
        image = engine.build_image(context)
        write_cases(folder, [*ATTACKS, GOOD])
        before = digests(folder)
        command: list[str | Path] = [
            *(sys.executable, "-m", "evaluation", "run", "--image", image.name, "--gpu", "none"),
            *("--cases", folder / "scans", "--labels", folder / "labels"),
            *("--output", folder / "results", "--memory", str(MEMORY_MIB)),
            *("--timeout", str(TIMEOUT_S)),
        ]
        environment = os.environ | {"SECRET": "1", "HTTPS_PROXY": "http://secret@127.0.0.1:9"}
        try:
            done = subprocess.run(
                command,
                cwd=engine.ROOT,
                env=environment,
                capture_output=True,
                timeout=540,
                check=False,
            )
            print(done.stdout.decode()[-3000:], done.stderr.decode()[-3000:])
            yield Run(folder, done, before)
        finally:
            engine.remove_image(image)


def test_they_are_as_many_as_is_said() -> None:
    assert f"has {len(ATTACKS)} attacks" in (engine.ROOT / "SECURITY.md").read_text()


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_gets_nothing_and_costs_its_own_case_alone(attacked: Run, name: str) -> None:
    one, attack = attacked.record(name), ATTACKS[name]
    print(one["state"], one["message"], one["log"][-5:])
    log = "\n".join(one["log"])
    assert BROKEN not in log
    assert one["state"] == attack.state or attack.state == "*"
    assert one["state"] not in ("ok", "infra_error")
    assert attack.says in one["message"]
    assert len(one["message"]) < 500
    assert one["message"].isprintable()
    assert one["attempts"] == 1


def test_the_scripts_ran(attacked: Run) -> None:
    """What prints nothing has tried nothing."""
    loud = {"endless_log", "no_newline"}  # of these the end alone is kept
    silent = [name for name in ATTACKS if TRIED not in "\n".join(attacked.record(name)["log"])]
    assert set(silent) <= loud


def test_a_good_case_after_all_attacks_has_its_score(attacked: Run) -> None:
    assert attacked.record(GOOD)["state"] == "ok"
    assert attacked.record(GOOD)["accuracy"]["dsc"] == 1.0


def test_nothing_is_changed_and_nothing_is_left(attacked: Run) -> None:
    assert digests(attacked.folder) == attacked.before
    assert not [*(attacked.folder / "results").glob("**/.work/*/*")]
    listed = engine.docker("ps", "--all", "--quiet", "--filter", f"label={OWNER_LABEL}")
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert "sleep 997" not in running.stdout.splitlines()
    assert listed.stdout == ""
    files = [path for path in (attacked.folder / "results").rglob("*") if path.is_file()]
    assert not [path for path in files if path.stat().st_mode & 0o6000]
    assert sum(path.stat().st_blocks * 512 for path in files) < 64 * 2**20


def test_nothing_reaches_the_terminal_as_it_is(attacked: Run) -> None:
    said = attacked.done.stdout + attacked.done.stderr
    assert b"\033" not in said
    assert b"Traceback" not in said
    assert attacked.done.returncode == 1


# What the probes find where nothing holds them: that they could say so.
FOUND_WITHOUT = (
    "make_device",
    "change_owner",
    "raw_socket",
    "packet_socket",
    "capabilities",
    "setuid",
)


@pytest.mark.parametrize("name", FOUND_WITHOUT)
def test_without_a_sandbox_the_probe_gets_in(name: str) -> None:
    with engine.in_use("docker"):
        base = "debian:bookworm-slim"
        if "BASE_IMAGE=" in (options := os.environ.get("IMAGE_BUILD_ARGS", "")):
            base = options.partition("BASE_IMAGE=")[2].split()[0]
        freely = ("run", "--rm", "--network", "none", base, "sh", "-c")
        assert BROKEN in engine.docker(*freely, ATTACKS[name].script, check=False).stdout
