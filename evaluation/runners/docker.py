"""Builds a submission's image and runs it with the organisers' own command line, by the Docker CLI.

Their line: docker container run --gpus "device=1" -m 28G --name T --rm -v $PWD/inputs/:/workspace/
inputs/ -v $PWD/outputs/:/workspace/outputs/ T:latest /bin/bash -c "sh predict.sh"
"""

import subprocess
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from evaluation.errors import EvaluationError
from evaluation.runners import Outcome, last_line

MEMORY_LIMIT = "28G"
QUERY_TIMEOUT_S = 5.0
STOP_TIMEOUT_S = 60.0


def engine_version() -> str | None:
    """Return the version of the Docker engine, or None when none answers within seconds."""
    return _answer("docker", "version", "--format", "{{.Server.Version}}")


def gpu_options() -> list[str]:
    """Return `--gpus "device=0"` as arguments where the engine can hand a GPU in, else none.

    That takes a GPU whose driver answers (nvidia-smi) and NVIDIA's container toolkit.
    """
    gpus = _answer("nvidia-smi", "-L")
    if gpus is None or "GPU 0" not in gpus:
        return []
    runtimes = _answer("docker", "info", "--format", "{{json .Runtimes}}")
    toolkit = _answer("nvidia-container-cli", "--version")
    if toolkit is None and (runtimes is None or "nvidia" not in runtimes):
        return []
    return ["--gpus", "device=0"]


def build(image: str, source: Path, log: Path, arguments: Sequence[str] = ()) -> float:
    """Run `docker build -t <image> <arguments> .` in `source`; return its seconds.

    log: receives what the build prints. Raises EvaluationError with its last line on failure.
    """
    start = time.perf_counter()
    with log.open("wb") as sink:
        done = subprocess.run(
            ["docker", "build", "-t", image, *arguments, "."],
            cwd=source,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode != 0:
        raise EvaluationError(f"docker build failed: {last_line(log)} (all of it: {log})")
    return time.perf_counter() - start


def run(work: Path, log: Path, *, image: str, gpu: Sequence[str] = (), timeout_s: float) -> Outcome:
    """Run one container on `work/inputs`; masks are expected in `work/outputs`.

    log: receives the container's stdout and stderr. gpu: see `gpu_options`.
    The container is removed whatever happens.
    """
    name = f"{image.partition(':')[0].rpartition('/')[2]}-{uuid.uuid4().hex[:12]}"
    command = ["docker", "container", "run", *gpu, "-m", MEMORY_LIMIT, "--name", name, "--rm"]
    for folder in ("inputs", "outputs"):
        command += ["-v", f"{work.resolve() / folder}/:/workspace/{folder}/"]
    command += [image, "/bin/bash", "-c", "sh predict.sh"]
    exit_code: int | None = None
    with log.open("wb") as sink:
        start = time.perf_counter()
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                timeout=timeout_s,
                check=False,
            )
            exit_code = done.returncode
        except subprocess.TimeoutExpired:
            pass
        finally:
            runtime_s = time.perf_counter() - start
            if exit_code is None:
                # Only the client has been stopped; the container lives on without it.
                _answer("docker", "rm", "--force", name, timeout_s=STOP_TIMEOUT_S)
    return Outcome(runtime_s, exit_code)


def _answer(*command: str, timeout_s: float = QUERY_TIMEOUT_S) -> str | None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
