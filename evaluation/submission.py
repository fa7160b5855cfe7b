"""The submission that is judged: an image, an archive of one, or a command in its own folder."""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from evaluation.conditions import Conditions
from evaluation.errors import EvaluationError
from evaluation.gpu.devices import Gpu
from evaluation.runners import InputError, Runner, images
from evaluation.runners.docker import DockerRunner, connect
from evaluation.runners.process import ProcessRunner


@dataclass(frozen=True)
class Submission:
    """One of the three; `source` is the folder that a command runs in."""

    image: str | None = None
    archive: Path | None = None
    command: str | None = None
    source: Path = Path()

    def runner(self, conditions: Conditions, gpu: Gpu | None) -> Runner:
        """Return what runs it; raises EvaluationError when it is not there."""
        uuid = gpu.uuid if gpu else None
        if self.command is not None:
            self._check_command(self.command)
            return ProcessRunner(self.command, self.source, conditions.limits, uuid, os.environ)
        client = connect()
        if self.archive is not None:
            image, added = images.load(client, self.archive)
        else:
            assert self.image is not None
            image, added = self.image, []
        try:
            contract = conditions.challenge.contract
            return DockerRunner(client, image, conditions.limits, uuid, contract)
        except InputError:
            images.remove(client, added)
            raise

    def _check_command(self, command: str) -> None:
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise EvaluationError(f"--command {command!r}: {error}") from error
        scripts = [word for word in words if word.endswith(".sh")]
        if not words or any(not (self.source / script).is_file() for script in scripts):
            raise EvaluationError(
                f"--command {command!r}: no such script in {self.source.resolve()}, where it runs;"
                " go to the submission's own folder"
            )
