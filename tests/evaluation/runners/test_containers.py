"""What containers alone hold, and whose failure it is when one does not start."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from evaluation.runners import (
    WITHOUT_SANDBOX,
    InfrastructureError,
    InputError,
    Job,
)
from evaluation.runners.docker import DockerRunner, connect
from tests import engine
from tests.evaluation.challenges import FLARE24
from tests.evaluation.runners.scripts import SMALL, Scripts


def test_the_sandbox_has_no_rights_and_cannot_change_its_inputs(base: str, tmp_path: Path) -> None:
    scripts = Scripts("container", base, tmp_path)
    outcome = scripts.run(
        "grep CapEff /proc/self/status; grep NoNewPrivs /proc/self/status;"
        "touch inputs/x 2>/dev/null || echo read-only; df -m /tmp /dev/shm | awk '{print $2}';"
        "printf '#!/bin/sh\\necho ran' > /tmp/x; chmod +x /tmp/x; /tmp/x; cat /proc/1/comm"
    )
    said = outcome.log.split()
    assert "0000000000000000" in said
    assert said[said.index("NoNewPrivs:") + 1] == "1"
    assert {"read-only", "16", "32", "ran"} <= set(said)
    assert said[-1] in ("docker-init", "podman-init")


def test_without_the_sandbox_it_is_the_organisers_command_line(base: str, tmp_path: Path) -> None:
    scripts = Scripts("container", base, tmp_path)
    limits = replace(WITHOUT_SANDBOX, memory_mib=128, shm_mib=32)
    outcome = scripts.run(
        "touch inputs/x && echo writable; id -u; tail -n +3 /proc/net/dev | grep -vc lo:", limits
    )
    assert outcome.log.split() == ["writable", "0", "1"]


@pytest.mark.usefixtures("base")
def test_an_image_without_the_contracts_shell_has_failed_itself(tmp_path: Path) -> None:
    image = engine.build_text("FROM scratch\nCOPY Dockerfile /\n")
    try:
        scripts = Scripts("container", image.name, tmp_path)
        outcome = scripts.run("true")
    finally:
        engine.remove_image(image)
    # Docker does not start it (127); Podman's init starts, and fails (1).
    assert outcome.exit_code in (1, 127)
    assert "no such file" in outcome.log.lower()


FAULTS = {
    "user": "USER nobody-here\n",
    "group": "USER 0:nobodies-here\n",
    "number": "USER 99999999999\n",
    "volume": "VOLUME /proc\n",
    "links to inputs": "RUN ln -s b /workspace/inputs && ln -s inputs /workspace/b\n",
    "links to /tmp": "RUN rm -r /tmp && ln -s tmp /tmp\n",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_the_image_has_wrong_is_not_the_engines_failure(
    base: str, tmp_path: Path, fault: str
) -> None:
    image = engine.build_text(f"FROM {base}\n{FAULTS[fault]}")
    try:
        outcome = Scripts("container", image.name, tmp_path).run("true")
        left = engine.docker("ps", "--all", "--quiet", "--filter", f"ancestor={image.id}").stdout
    finally:
        engine.remove_image(image)
    assert (outcome.exit_code, outcome.stopped, outcome.runtime_s) == (125, None, 0)
    assert outcome.log.startswith("the container cannot be started: ")
    assert left == ""


# Podman does not say that it has no such GPU.
@pytest.mark.parametrize("base", engine.ENGINES[:1], indirect=True)
def test_what_no_image_could_be_started_with_is_the_engines_failure(
    base: str, tmp_path: Path
) -> None:
    scripts = Scripts("container", base, tmp_path)
    runner = DockerRunner(connect(), base, SMALL, "GPU-that-is-not-there", FLARE24.contract)
    job = Job("a", scripts.work("true"), 10.0, lambda: None)
    with pytest.raises(InfrastructureError, match="the engine does not start the container: "):
        runner.run(job)
    runner.close()


@pytest.mark.usefixtures("base")
def test_an_image_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match="no-such-image: the engine has no such image"):
        DockerRunner(connect(), "no-such-image", SMALL, None, FLARE24.contract)


# Podman refuses nothing when a container is made; starting it fails as if by accident.
@pytest.mark.parametrize("base", engine.ENGINES[:1], indirect=True)
def test_what_an_engine_refuses_is_not_the_machines_failure(base: str, tmp_path: Path) -> None:
    scripts = Scripts("container", base, tmp_path)
    with pytest.raises(InputError, match="the engine does not start the container"):
        scripts.run("true", replace(SMALL, memory_mib=1, shm_mib=1))


def test_a_path_may_hold_what_docker_takes_for_a_separator(base: str, tmp_path: Path) -> None:
    # Podman's API makes a list with commas of it.
    folder = tmp_path / ("a:b c=é" if engine.is_podman() else "a:b c,d=é")
    folder.mkdir()
    outcome = Scripts("container", base, folder).run("ls inputs; touch outputs/x")
    assert outcome.exit_code == 0
    assert "a_0000.nii.gz" in outcome.log
