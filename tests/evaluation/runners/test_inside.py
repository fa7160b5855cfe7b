"""What of the organisers' machine reaches a container, and what of a container counts."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from docker.models.containers import Container
from msgspec.structs import replace

from evaluation.batch.inspection import inspect
from evaluation.runners import MEMORY
from evaluation.runners import docker as runner_module
from evaluation.runners.docker import connect, log_of
from tests import engine
from tests.evaluation.challenges import FLARE24
from tests.evaluation.runners.scripts import SMALL, Scripts

pytestmark = pytest.mark.engine

PROXY = "http://organiser:secret@proxy.example:3128"


@pytest.fixture
def proxied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The organisers' own settings of Docker's client, which it would hand to each container."""
    default = {"httpProxy": PROXY, "httpsProxy": PROXY}
    (tmp_path / "client").mkdir()
    content = json.dumps({"proxies": {"default": default}})
    (tmp_path / "client" / "config.json").write_text(content)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "client"))


@pytest.mark.usefixtures("proxied")
def test_the_organisers_proxy_stays_outside(base: str, tmp_path: Path) -> None:
    client = connect()
    seen = client.containers.run(base, ["env"], remove=True, network_mode="none").decode()
    assert "secret" in seen  # so would it be
    outcome = Scripts("container", base, tmp_path).run("env")
    assert "PATH=" in outcome.log
    assert "proxy" not in outcome.log.lower()


@pytest.mark.usefixtures("proxied")
def test_the_organisers_proxy_stays_outside_of_an_inspection(tmp_path: Path) -> None:
    """Its shell is the image's own, too."""
    image = engine.build_text(
        "ARG BASE_IMAGE=debian:bookworm-slim\nFROM ${BASE_IMAGE}\nWORKDIR /workspace\n"
        "RUN touch predict.sh\n"
        'ENTRYPOINT ["sh", "-c", "env | grep -i secret && exit 44; exit 42"]\n'
    )
    client = connect()
    try:
        archive = tmp_path / "team.tar.gz"
        inspect(client, archive, f"{image.name}:latest", FLARE24.contract)
    finally:
        client.close()
        engine.remove_image(image)


def test_fetching_the_log_is_not_the_submissions_time(
    base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(container: Container) -> str:
        time.sleep(1.5)
        return log_of(container)

    monkeypatch.setattr(runner_module, "log_of", slow)
    outcome = Scripts("container", base, tmp_path).run("echo said")
    assert outcome.log == "said\n"
    assert outcome.runtime_s < outcome.wall_s <= outcome.removed_s - outcome.created_s - 1.5


ROOMY = replace(SMALL, tmp_mib=512, shm_mib=512)  # more than the memory, which is 128


@pytest.mark.parametrize("folder", ["/tmp", "/dev/shm"])
def test_files_in_memory_count(base: str, tmp_path: Path, folder: str) -> None:
    scripts = Scripts("container", base, tmp_path)
    outcome = scripts.run(f"head -c 300M /dev/zero > {folder}/x && sleep 20", ROOMY)
    if "memory_mib" in scripts.not_enforced():  # then it is watched
        assert outcome.stopped == MEMORY
        return
    assert outcome.exit_code == 137
    assert outcome.oom_kills
    assert outcome.peak_ram_mib == pytest.approx(ROOMY.memory_mib, rel=0.05)


def test_files_in_memory_count_where_the_engine_limits_none(
    base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "_not_enforced", lambda _: ["memory_mib"])
    scripts = Scripts("container", base, tmp_path)
    written = "head -c 30M /dev/zero > /tmp/x; head -c 40M /dev/zero > /dev/shm/x"
    outcome = scripts.run(f"{written}; sleep 0.5", ROOMY)
    assert outcome.exit_code == 0
    assert outcome.peak_ram_mib is not None
    assert 70 <= outcome.peak_ram_mib < 80


@pytest.mark.parametrize(
    ("info", "dropped"),
    [
        ({"CgroupVersion": "2"}, []),
        ({"CgroupVersion": "2", "MemoryLimit": True, "SwapLimit": False}, ["swap"]),
        ({"CgroupVersion": "1", "PidsLimit": False, "MemoryLimit": False}, ["pids", "memory_mib"]),
        ({"CgroupVersion": "1", "Rootless": True}, ["pids", "memory_mib", "swap"]),
        ({"CgroupVersion": "2", "Rootless": True}, []),
    ],
)
def test_what_an_engine_cannot_limit_is_said(info: dict[str, object], dropped: list[str]) -> None:
    client = SimpleNamespace(info=lambda: info)
    assert runner_module._not_enforced(client) == dropped
