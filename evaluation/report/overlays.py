"""Which of a team's pictures the page shows: the cases that went best and worst."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from evaluation.record import Record
from evaluation.states import State
from evaluation.store import Store

EACH = 2  # best cases, and worst ones
QUALITY = 80  # of WebP: a third of the PNG, and outlines stay sharp


@dataclass(frozen=True)
class Overlay:
    """One case's picture; which: best or worst. It shows the case's worst lesion, if it can."""

    case: str
    which: str
    dsc: float
    width: int
    height: int
    webp: bytes


def overlays(store: Store, records: Sequence[Record]) -> list[Overlay]:
    """Return the pictures of the best cases, then of the worst, each from its extreme on.

    By DSC, of cases with a lesion in the reference, a sound mask and a picture; none twice.
    """
    drawn = [
        (one.accuracy.dsc, one.case)
        for one in records
        if one.state is State.OK and one.accuracy and one.accuracy.lesion_count
        if any(path.exists() for path in _paths(store, one.case))
    ]
    by_dsc = sorted(drawn, key=lambda pair: (-pair[0], pair[1]))
    best = by_dsc[: min(EACH, (len(by_dsc) + 1) // 2)]
    worst = by_dsc[len(best) :][::-1][:EACH]
    return [
        _overlay(store, case, which, dsc)
        for which, chosen in (("best", best), ("worst", worst))
        for dsc, case in chosen
    ]


def _paths(store: Store, case: str) -> list[Path]:
    return [store.picture("overlays", f"{case}-{lesion}") for lesion in ("worst", "largest")]


def _overlay(store: Store, case: str, which: str, dsc: float) -> Overlay:
    path = next(path for path in _paths(store, case) if path.exists())
    with Image.open(path) as picture:
        webp = io.BytesIO()
        picture.convert("RGB").save(webp, "WEBP", quality=QUALITY)
        return Overlay(case, which, dsc, *picture.size, webp.getvalue())
