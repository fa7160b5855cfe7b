"""Runs a submission in a container through the Docker SDK; Podman's socket works as an engine too.

`create` and `start` are apart, so that making the container is not part of the submission's time.
"""

import contextlib
import shutil
import threading
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import docker
from docker.models.containers import Container
from docker.types import DeviceRequest, LogConfig, Mount
from msgspec import structs

from evaluation.contracts import Contract
from evaluation.outputs import Nameless
from evaluation.runners import (
    MEMORY,
    UNMEASURED,
    InfrastructureError,
    InputError,
    Job,
    Limits,
    Outcome,
    cgroup,
    end_of,
    owner,
    supervise,
)
from evaluation.runners.cgroup import Reading
from evaluation.runners.engine_errors import (
    ENGINE_ERRORS,
    Unstarted,
    attempted,
    create,
    engine_errors,
    reason,
    start,
)
from evaluation.runners.processes import SAMPLED, Tree, descendants

OWNER_LABEL, CASE_LABEL = "flare.owner", "flare.case"
ENGINE_TIMEOUT_S = 60.0  # for one answer; an engine that is silent for longer has failed
LOG_LINES = 5000
KEPT_LOG = LogConfig(type=LogConfig.types.JSON, config={"max-size": "10m", "max-file": "2"})
CLOCK_TOLERANCE_S = 0.02


def connect() -> docker.DockerClient:
    """Return a client of the engine that the environment names; raises InfrastructureError."""
    try:
        client = docker.from_env(timeout=ENGINE_TIMEOUT_S)
        client.ping()
    except ENGINE_ERRORS as error:
        raise InfrastructureError(
            f"no container engine answers ({reason(error)}): start Docker, or set DOCKER_HOST,"
            " or use --command"
        ) from error
    return client


def hands_in_gpus(client: docker.DockerClient) -> bool:
    """Say whether NVIDIA's container toolkit is set up, as far as the engine or the PATH shows."""
    with engine_errors("the engine does not say what it can do"):
        runtimes = client.info().get("Runtimes") or {}
    return "nvidia" in runtimes or shutil.which("nvidia-container-cli") is not None


def reap(client: docker.DockerClient) -> int:
    """Remove the containers of harnesses that have ended; return how many there were.

    Also those of this process, which runs none now: an engine that failed may have kept one.
    """
    removed, ours = 0, owner.token()
    with engine_errors("containers of an earlier run cannot be removed"):
        for container in client.containers.list(
            all=True, filters={"label": OWNER_LABEL}, ignore_removed=True
        ):
            if (label := container.labels[OWNER_LABEL]) == ours or owner.is_dead(label):
                with contextlib.suppress(docker.errors.NotFound):
                    container.remove(force=True, v=True)
                removed += 1
    return removed


def log_of(container: Container) -> str:
    """Return the end of what a container with KEPT_LOG has printed."""
    # Podman loses parts of lines when it is asked for a log's end alone (its issue 19545).
    whole = _engine(container.client).startswith("Podman")
    return end_of(container.logs(tail="all" if whole else LOG_LINES))


class DockerRunner:
    """Runs one image, one container a case."""

    def __init__(
        self,
        client: docker.DockerClient,
        image: str,
        limits: Limits,
        gpu: str | None,
        contract: Contract,
    ) -> None:
        self.client, self.limits, self.gpu, self.contract = client, limits, gpu, contract
        try:
            self.image = client.images.get(image)
        except docker.errors.ImageNotFound as error:
            raise InputError(f"{image}: the engine has no such image; build or load it") from error
        except ENGINE_ERRORS as error:
            raise InfrastructureError(f"{image}: {reason(error)}") from error
        contract.check_image(image, self.image.attrs["Config"])
        self.name = image
        self._not_enforced = _not_enforced(client)
        self._last = ""  # the last container's id
        self._session: int | None = None  # and, where it has no control group, its processes'

    def describe(self) -> dict[str, object]:
        """Return the image's digest, the engine's version, and which limits are not in force."""
        return {
            "runner": "docker",
            "image": self.name,
            "image_digest": self.image.id,
            "engine": _engine(self.client),
            "limits": structs.asdict(self.limits) | {"not_enforced": self._not_enforced},
        }

    def run(self, job: Job) -> Outcome:
        """See `Runner.run`."""
        options, created_s = self._options(job), time.monotonic()
        try:
            with engine_errors(f"{job.name}: the engine failed"):
                return attempted(lambda: self._run(job, options), self.client, options)
        except Unstarted as unstarted:
            return _not_started(unstarted, created_s)

    def owns(self, cgroup: str, session: int | None) -> bool:
        """See `Runner.owns`: the paths of a container's control groups hold its id."""
        return (bool(self._last) and self._last in cgroup) or (
            session is not None and session == self._session
        )

    def reap(self) -> int:
        """Remove the containers of harnesses that have ended."""
        return reap(self.client)

    def close(self) -> None:
        """Close the connection."""
        self.client.close()

    def _run(self, job: Job, options: dict[str, Any]) -> Outcome:
        created_s = time.monotonic()
        command = self.contract.command
        container = create(self.client, self.image.id, list(command) if command else None, options)
        self._last = container.id
        try:
            return self._supervised(job, container, created_s)
        finally:
            # Also when something was raised: nothing may be left. A second removal does no harm.
            with contextlib.suppress(*ENGINE_ERRORS):
                container.remove(force=True, v=True)

    def _options(self, job: Job) -> dict[str, Any]:
        limits = self.limits
        memory = f"{limits.memory_mib}m"
        options: dict[str, Any] = {
            "mem_limit": memory,
            "shm_size": f"{limits.shm_mib}m",
            # Not "volumes", whose text knows no path with a colon.
            "mounts": [
                _mount(job.work / "inputs", self.contract.inputs, limits.sandboxed),
                _mount(job.work / "outputs", self.contract.outputs, False),
            ],
            "labels": {OWNER_LABEL: owner.token(), CASE_LABEL: job.name},
            "log_config": KEPT_LOG,
        }
        if self.gpu is not None:
            options["device_requests"] = [
                DeviceRequest(device_ids=[self.gpu], capabilities=[["gpu"]])
            ]
        if limits.pids is not None:
            options["pids_limit"] = limits.pids
        if limits.tmp_mib is not None:
            # exec, which is not the default: compilers of GPU kernels load what they write there.
            options["tmpfs"] = {"/tmp": f"rw,exec,nosuid,nodev,mode=1777,size={limits.tmp_mib}m"}
        if limits.sandboxed:
            options |= {
                "memswap_limit": memory,
                "network_mode": "none",
                "cap_drop": ["ALL"],
                "security_opt": ["no-new-privileges"],
                "init": True,
            }
        return options

    def _supervised(self, job: Job, container: Container, created_s: float) -> Outcome:
        """Start the container, watch it, and remove it."""
        start_called_s, to_monotonic = time.monotonic(), time.monotonic() - time.time()
        start(container)
        started_s = time.monotonic()
        waiter = _Waiter(container)
        container.reload()
        stopped, reading, measured_by = self._watched(job, container, started_s, waiter)
        if stopped is not None:
            with contextlib.suppress(docker.errors.APIError):  # it may just have ended
                container.kill()
        if not waiter.wait(ENGINE_TIMEOUT_S):
            raise InfrastructureError(f"{job.name}: the engine cannot stop the container")
        ended_s = time.monotonic()
        waiter.check()
        container.reload()
        state = container.attrs["State"]
        if state.get("OOMKilled"):
            reading = replace(reading, oom_kills=max(1, reading.oom_kills))
        asked_s = time.monotonic()
        log, log_s = log_of(container), time.monotonic() - asked_s
        container.remove(force=True, v=True)
        began, finished = started_s, ended_s
        # The engine's stamps are of the wall clock: if that was set meanwhile, ours have to do.
        if abs(time.monotonic() - time.time() - to_monotonic) < CLOCK_TOLERANCE_S:
            began = _stamp(state["StartedAt"], to_monotonic, start_called_s, started_s)
            finished = _stamp(state["FinishedAt"], to_monotonic, began, ended_s)
        return Outcome(
            created_s=created_s,
            started_s=began,
            finished_s=finished,
            removed_s=time.monotonic(),
            log_s=log_s,
            exit_code=None if stopped else int(state["ExitCode"]),
            stopped=stopped,
            **vars(reading),
            measured_by=measured_by,
            log=log,
        )

    def _watched(
        self, job: Job, container: Container, started_s: float, waiter: "_Waiter"
    ) -> tuple[str | None, Reading, str]:
        """Watch a container to its end; return why it is to be stopped, what it used, and by what.

        Where the engine does not limit memory its processes and files in memory are watched.
        """
        pid, group = container.attrs["State"]["Pid"], _group(container)
        tree = None
        if "memory_mib" in self._not_enforced and pid:
            in_memory = ("dev/shm", "tmp") if self.limits.tmp_mib is not None else ("dev/shm",)
            folders = [Path(f"/proc/{pid}/root", folder) for folder in in_memory]
            tree = Tree(lambda: descendants(pid), folders)
        self._session = pid if tree else None
        members = group.members if group else lambda: descendants(pid) if tree else ()
        nameless = Nameless(members, job.work)

        def full_or_watched() -> str | None:
            if tree is not None and tree.memory_mib() > self.limits.memory_mib:
                return MEMORY
            return nameless.excess(self.limits.output_mib) or job.watch()

        stopped, reading = supervise(
            replace(job, watch=full_or_watched),
            started_s,
            waiter.wait,
            lambda: group.read() if group else None,
        )
        if tree is not None:
            return stopped, Reading(peak_ram_mib=tree.peak_mib or None), SAMPLED
        if group is None or reading == Reading():
            return stopped, reading, UNMEASURED
        return stopped, reading, f"cgroup v{group.version}"


def _engine(client: docker.DockerClient) -> str:
    """Return the engine's name and version."""
    with engine_errors("the engine does not say its version"):
        version = client.version()
    components = [part["Name"] for part in version.get("Components") or []]
    return f"{components[0] if components else 'Engine'} {version['Version']}"


def _not_enforced(client: docker.DockerClient) -> list[str]:
    """Return the limits that this engine drops: of a kernel that lacks one, and without root all.

    Without root, in version 1 of control groups, it says that it can limit.
    """
    with engine_errors("the engine does not say what it can do"):
        info = client.info()
    rootless = info.get("Rootless") or "name=rootless" in (info.get("SecurityOptions") or [])
    unlimited = str(info.get("CgroupVersion")) != "2" or info.get("CgroupDriver") == "none"
    of_kernel = {"pids": "PidsLimit", "memory_mib": "MemoryLimit", "swap": "SwapLimit"}
    dropped = (name for name, field in of_kernel.items() if info.get(field) is False)
    return [*of_kernel] if rootless and unlimited else [*dropped]


def _mount(source: Path, target: str, read_only: bool) -> Mount:
    return Mount(target, str(source.resolve()), type="bind", read_only=read_only)


def _group(container: Container) -> cgroup.Group | None:
    """Return the container's control group; None where it has ended, or cannot be seen from here.

    An engine in another PID namespace names a process of its own: here that is any process.
    """
    group = cgroup.of_process(container.attrs["State"]["Pid"] or -1)
    return group if group is not None and container.id in str(group.memory) else None


class _Waiter:
    """Waits for a container's end in a thread, because the engine answers only at the end."""

    def __init__(self, container: Container) -> None:
        self._ended = threading.Event()
        self._error: Exception | None = None
        self._container = container
        threading.Thread(target=self._block, daemon=True).start()

    def _block(self) -> None:
        try:
            self._container.wait(timeout=None)  # the deadline is the supervisor's
        except ENGINE_ERRORS as error:
            self._error = error
        finally:
            self._ended.set()

    def wait(self, timeout_s: float) -> bool:
        """Return whether the container has ended, after at most this long."""
        return self._ended.wait(timeout_s)

    def check(self) -> None:
        """Raise the engine's error if that is what ended the wait."""
        if self._error is not None:
            raise self._error


def _not_started(unstarted: Unstarted, created_s: float) -> Outcome:
    ended_s = time.monotonic()
    return Outcome(
        created_s=created_s,
        started_s=ended_s,
        finished_s=ended_s,
        removed_s=ended_s,
        exit_code=unstarted.code,
        stopped=None,
        log=f"the container cannot be started: {unstarted}",
    )


def _stamp(text: str, to_monotonic: float, earliest_s: float, latest_s: float) -> float:
    """Return an engine's stamp, as 2024-01-31T12:00:00.123456789Z, on our clock, between both."""
    second = datetime.fromisoformat(text).timestamp() + to_monotonic
    return min(max(second, earliest_s), latest_s)
