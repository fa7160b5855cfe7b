"""Under what a submission is run: what is the same for each of its cases."""

from msgspec import Struct

from evaluation.challenges import Challenge
from evaluation.runners import Limits

INTERVAL_S = 0.02


class Conditions(Struct, frozen=True, forbid_unknown_fields=True):
    """How cases are run, measured and scored; interval_s: between two samples of the GPU.

    anonymised: cases are handed over without their names.
    """

    challenge: Challenge
    limits: Limits
    timeout_s: float
    interval_s: float
    anonymised: bool = False  # where an earlier version did not say so


def usual(challenge: Challenge) -> Conditions:
    """Return a challenge's conditions where nothing else is asked for: in the sandbox."""
    return Conditions(challenge, Limits(), challenge.limits.timeout_s, INTERVAL_S)
