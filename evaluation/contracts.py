"""What harness and image agree on: where a case's files lie, under which names, what is called.

FLARE: the organisers' `docker run` line. Grand Challenge, by its page on the runtime environment
(https://grand-challenge.org/documentation/runtime-environment/) and its templates: one case per
container, the image's own entry point without arguments, and not as root, MetaImage in a folder for
each socket.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta, Struct

from evaluation.errors import EvaluationError
from evaluation.runners import InputError

if TYPE_CHECKING:
    from evaluation.cases import Case

ROOT = ("", "root", "0")
Slug = Annotated[str, Meta(pattern="^[a-z0-9]+(-[a-z0-9]+)*$")]
Folder = Annotated[str, Meta(pattern="^/")]


class Contract(Struct, frozen=True, forbid_unknown_fields=True):
    """One way to hand a case to a container; raises ValueError for what cannot be.

    inputs, outputs: folders in the container. command: what is called there; none is the image's
    own entry point. input_sockets: one a channel, which lies beneath `inputs` in images/SLUG/ as
    .mha under any name; none: all channels lie in `inputs` as the .nii.gz that they are.
    output_socket: where a mask in .mha is expected; none: NAME.nii.gz in `outputs`. shm_share: of
    the memory, in /dev/shm.
    """

    inputs: Folder
    outputs: Folder
    command: Annotated[tuple[str, ...], Meta(min_length=1)] | None = None
    input_sockets: tuple[Slug, ...] = ()
    output_socket: Slug | None = None
    may_be_root: bool = True
    shm_share: Annotated[float, Meta(gt=0, le=1)] = 1.0

    def __post_init__(self) -> None:
        if bool(self.input_sockets) != (self.output_socket is not None):
            raise ValueError("input_sockets and output_socket need each other")

    @property
    def sockets(self) -> tuple[str, ...]:
        """The folder of each channel beneath `inputs`, where there are sockets."""
        return tuple(f"images/{slug}" for slug in self.input_sockets)

    @property
    def mask(self) -> str:
        """What `outputs` must hold, as a pattern: {case} is the case's name; .mha is converted."""
        return f"images/{self.output_socket}/*.mha" if self.output_socket else "{case}.nii.gz"

    def check_cases(self, cases: Sequence["Case"]) -> None:
        """Raise EvaluationError when a case has more or fewer channels than there are sockets."""
        for case in cases:
            if self.sockets and len(case.scans) != len(self.sockets):
                raise EvaluationError(
                    f"{case.scans[0]}: case {case.name} has {len(case.scans)} channel(s), and there"
                    f" are {len(self.sockets)} socket(s): {', '.join(self.sockets)}; a challenge's"
                    " contract needs an input socket for each channel"
                )

    def check_image(self, image: str, config: dict[str, Any]) -> None:
        """Raise InputError when an image's configuration (OCI's names) breaks the contract."""
        user = str(config.get("User") or "")
        if not self.may_be_root and user.partition(":")[0] in ROOT:
            raise InputError(
                f"{image}: runs as root, which the challenge refuses; add USER to its Dockerfile"
            )
        if self.command is None and not (config.get("Entrypoint") or config.get("Cmd")):
            raise InputError(
                f"{image}: has no entry point, which the challenge calls; add ENTRYPOINT to its"
                " Dockerfile"
            )
