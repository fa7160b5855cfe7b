"""Runs a team's archive with Apptainer, which clusters have that have no engine.

Never run so far: no Apptainer could be installed where this was written. Its flags are those of
the manual of Apptainer 1.2; the tests hold the command lines against that, and run them with a
stand-in of the program.
"""

import csv
import hashlib
import io
import json
import shlex
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluation.contracts import Contract
from evaluation.runners import InputError, Limits, cgroup, last_line
from evaluation.runners.process import OWNER_VARIABLE, RUN_VARIABLE, ProcessRunner

PROGRAM = "apptainer"
CONFIG_BYTES = 2**20  # of a file in an archive that may be an image's configuration


def build_command(archive: Path, image: Path) -> list[str]:
    """Return the command that makes an Apptainer image of what `docker save` wrote, gzip or not."""
    return [PROGRAM, "build", str(image), f"docker-archive:{archive}"]


def run_command(
    image: Path,
    work: Path,
    limits: Limits,
    contract: Contract,
    gpu: str | None,
    *,
    folder: str,
    can_limit: bool,
) -> list[str]:
    """Return the command that runs an image on a case, laid out in `work`.

    gpu: UUID of the one that CUDA sees; all are there. folder: the image's WORKDIR, which Apptainer
    leaves out, as it does USER. can_limit: whether control groups are of version 2, which Apptainer
    needs for limits.
    """
    inputs, outputs = work / "inputs", work / "outputs"
    command = [PROGRAM, "exec" if contract.command else "run"]
    # compat: nothing of the host's files and environment, a PID namespace, and a root file system
    # that can be written to, into memory. no-home: nor an empty one. workdir: /tmp is on the disk.
    command += ["--compat", "--no-home", "--workdir", str(work), "--pwd", folder]
    command += ["--mount", _mount(inputs, contract.inputs, read_only=limits.locked_down)]
    command += ["--mount", _mount(outputs, contract.outputs, read_only=False)]
    if limits.locked_down:
        command += ["--net", "--network", "none", "--no-privs"]
    if can_limit:
        command += ["--memory", f"{limits.memory_mib}M"]
        command += ["--memory-swap", f"{limits.memory_mib}M"] if limits.locked_down else []
        command += [] if limits.pids is None else ["--pids-limit", str(limits.pids)]
    if gpu is not None:
        command += ["--nv", "--env", f"CUDA_VISIBLE_DEVICES={gpu}"]
    return [*command, str(image), *(contract.command or ())]


class ApptainerRunner(ProcessRunner):
    """Runs one archive, one `apptainer` a case, which is watched and ended like any process."""

    def __init__(
        self,
        archive: Path,
        limits: Limits,
        gpu: str | None,
        environment: Mapping[str, str],
        contract: Contract,
    ) -> None:
        """Make an image of the archive; raises EvaluationError when that cannot be done."""
        self._config, self._digest = read_config(archive)
        contract.check_image(str(archive), self._config)
        self.archive, self.contract, self._gpu = archive, contract, gpu
        self._can_limit = cgroup.unified()
        self._version = _said_by([PROGRAM, "--version"], archive)
        self._images = tempfile.TemporaryDirectory(prefix="flare-apptainer-")
        self._image = Path(self._images.name) / "image.sif"
        try:
            _said_by(build_command(archive, self._image), archive)
            super().__init__("", self._image.parent, limits, gpu, environment)
        except BaseException:
            self._images.cleanup()
            raise
        self._offline = False  # its own flags do that

    def describe(self) -> dict[str, object]:
        """Return the image's digest, Apptainer's version, and which limits are not in force."""
        limited = ("pids", "memory_mib") if self._can_limit else ()
        not_enforced = [name for name in self._unlimited() if name not in limited]
        return {
            "runner": "apptainer",
            "image": str(self.archive),
            "image_digest": self._digest,
            "contract": self.contract.name,
            "engine": self._version,
            "limits": vars(self.limits) | {"not_enforced": not_enforced},
        }

    def close(self) -> None:
        """Remove the image."""
        self._images.cleanup()

    def _furnish(self, work: Path) -> None:
        """Everything is in the image."""

    def _shell_command(self, work: Path) -> str:
        command = run_command(
            self._image,
            work.resolve(),
            self.limits,
            self.contract,
            self._gpu,
            folder=str(self._config.get("WorkingDir") or "/"),
            can_limit=self._can_limit,
        )
        # What marks a submission's processes must be in their environment too.
        marks = [f'APPTAINERENV_{name}="${name}"' for name in (OWNER_VARIABLE, RUN_VARIABLE)]
        return " ".join([*marks, "exec", shlex.join(command)])


def read_config(archive: Path) -> tuple[dict[str, Any], str]:
    """Return the configuration (OCI's names) of the one image in an archive, and its digest.

    Raises InputError when it cannot be read or holds another number of images.
    """
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(archive) as files:
            for member in files:  # in one pass: going back in a gzip costs as much as the whole
                if member.isreg() and member.size <= CONFIG_BYTES:
                    stream = files.extractfile(member)
                    found[member.name] = stream.read() if stream else b""
        (image,) = json.loads(found["manifest.json"])
        content = found[image["Config"]]
        config = dict(json.loads(content)["config"])
    except OSError as error:
        raise InputError(f"{archive}: cannot be read ({error.strerror or error})") from error
    except (tarfile.TarError, EOFError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{archive}: not an archive of one image; write it with docker save"
        ) from error
    return config, f"sha256:{hashlib.sha256(content).hexdigest()}"


def _mount(source: Path, target: str, *, read_only: bool) -> str:
    """Return what --mount takes: CSV, so that a path may hold any character."""
    fields = ["type=bind", f"source={source}", f"destination={target}"]
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow([*fields, *(["ro"] if read_only else [])])
    return text.getvalue()


def _said_by(command: list[str], archive: Path) -> str:
    """Return the last line that a command printed; raises InputError when it fails."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise InputError(
            f"{archive}: --runner apptainer needs the program {PROGRAM}, and it is not on PATH"
        ) from error
    said = last_line((done.stdout + done.stderr).decode(errors="replace"))
    if done.returncode != 0:
        raise InputError(f"{archive}: {shlex.join(command[:2])} failed: {said}")
    return said
