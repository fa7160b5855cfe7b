"""What harness and image agree on: where a case's files lie, under which names, what is called.

FLARE: the organisers' `docker run` line. Grand Challenge, by its page on the runtime environment
(https://grand-challenge.org/documentation/runtime-environment/) and its templates: one case per
container, the image's own entry point without arguments, and not as root, MetaImage in a folder for
each socket.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.cases import Case
from evaluation.errors import EvaluationError
from evaluation.runners import InputError

INPUT_SOCKET, OUTPUT_SOCKET = "ct", "tumor-lesion-segmentation"  # autoPET's
ROOT = ("", "root", "0")
SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True)
class Contract:
    """One way to hand a case to a container.

    sockets: folder beneath `inputs` of each channel, which holds it as .mha under any name; none:
    all channels lie in `inputs` as the .nii.gz that they are. mask: what `outputs` must hold, as a
    pattern: {case} is the case's name; one that ends in .mha is converted. command: None is the
    image's own entry point.
    """

    name: str
    inputs: str  # in the container
    outputs: str
    mask: str
    command: tuple[str, ...] | None
    sockets: tuple[str, ...] = ()
    may_be_root: bool = True
    shm_share: float = 1.0  # of the memory, in /dev/shm

    def check_cases(self, cases: Sequence[Case]) -> None:
        """Raise EvaluationError when a case has more or fewer channels than there are sockets."""
        for case in cases:
            if self.sockets and len(case.scans) != len(self.sockets):
                raise EvaluationError(
                    f"{case.scans[0]}: case {case.name} has {len(case.scans)} channel(s), and there"
                    f" are {len(self.sockets)} socket(s): {', '.join(self.sockets)}; give an"
                    " --input-socket for each channel"
                )

    def check_image(self, image: str, config: dict[str, Any]) -> None:
        """Raise InputError when an image's configuration (OCI's names) breaks the contract."""
        user = str(config.get("User") or "")
        if not self.may_be_root and user.partition(":")[0] in ROOT:
            raise InputError(
                f"{image}: runs as root, which {self.name} refuses; add USER to its Dockerfile"
            )
        if self.command is None and not (config.get("Entrypoint") or config.get("Cmd")):
            raise InputError(
                f"{image}: has no entry point, which {self.name} calls; add ENTRYPOINT to its"
                " Dockerfile"
            )


FLARE = Contract(
    name="flare",
    inputs="/workspace/inputs",
    outputs="/workspace/outputs",
    mask="{case}.nii.gz",
    command=("/bin/bash", "-c", "sh predict.sh"),
)


def grand_challenge(
    inputs: Sequence[str] = (INPUT_SOCKET,), output: str = OUTPUT_SOCKET
) -> Contract:
    """Return Grand Challenge's contract; inputs, output: slugs of the algorithm's image sockets.

    Raises EvaluationError when one is no slug.
    """
    for slug in (*inputs, output):
        if not SLUG.fullmatch(slug):
            raise EvaluationError(
                f"{slug!r}: not a socket's slug; expected lower case, digits and hyphens, as in"
                f" {OUTPUT_SOCKET}"
            )
    return Contract(
        name=f"grand-challenge {','.join(inputs)}:{output}",
        inputs="/input",
        outputs="/output",
        mask=f"images/{output}/*.mha",
        command=None,
        sockets=tuple(f"images/{slug}" for slug in inputs),
        may_be_root=False,
        shm_share=0.5,
    )
