"""Who a page is for, and what of the results it therefore shows.

The organisers' page has everything. The public's has figures: cases are numbered in an order that
tells nothing, and there are no logs, messages, pictures of scans, machines or paths. A team's is
the public's, with what became of its own cases in words. What else is wanted is asked for by name.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evaluation.record import Record

WITHHELD = {
    "case-names": "cases by their names instead of numbers",
    "messages": "why a case failed or a team was refused",
    "logs": "the end of what a failed case printed",
    "pictures": "the best and worst cases, drawn with their references",
    "machines": "image, command, engine, machine, GPU, and the folders of paths",
}
# Of a case: the metrics, and what is drawn beside a curve.
PUBLIC_COLUMNS = (
    "status",
    "dsc",
    "nsd",
    "lesion_f1",
    "flare_time_s",
    "peak_vram_mib",
    "area_mib_s",
    "peak_ram_mib",
    "runtime_s",
    "baseline_mib",
)
PATH = re.compile(r"[^\s'\"(]*[/\\](?=[^\s/\\])")  # all but the last name in it


@dataclass(frozen=True)
class Audience:
    """What a page shows of one team.

    shown: of WITHHELD. columns: of a case; None: all there are. numbers: of the cases, by name.
    """

    shown: frozenset[str]
    columns: tuple[str, ...] | None
    numbers: Mapping[str, str]

    def case(self, name: str) -> str:
        """Return what a case is called."""
        return name if "case-names" in self.shown else self.numbers.get(name, "of no record")

    def text(self, words: str) -> str:
        """Return words without names of cases and folders of paths, where these are not shown."""
        names = "|".join(map(re.escape, sorted(self.numbers, key=len, reverse=True)))
        if names and "case-names" not in self.shown:
            words = re.sub(names, lambda name: self.numbers[name[0]], words)
        return words if "machines" in self.shown else PATH.sub("", words)

    def message(self, words: str) -> str:
        """Return why something failed, or nothing where that is not shown."""
        return self.text(words) if "messages" in self.shown else ""


def organisers() -> Audience:
    """Return those who may see everything."""
    return Audience(frozenset(WITHHELD), None, {})


def readers(records: Iterable["Record"], show: Iterable[str], columns: Sequence[str]) -> Audience:
    """Return those outside. records: all teams'; show: of WITHHELD; columns: none for the usual.

    Cases are numbered in the order of their references' SHA-256, which is nobody's who has not
    the references; of one reference, such as an empty one, in that of their scans'.
    """
    digests = {one.case: (one.reference_sha256, one.scans_sha256) for one in records}
    order = sorted(digests, key=lambda case: (digests[case], case))
    digits = len(str(len(order)))
    numbers = {case: f"{number:0{digits}}" for number, case in enumerate(order, 1)}
    shown = frozenset(show)
    chosen = ["case", *(columns or PUBLIC_COLUMNS), *(["message"] if "messages" in shown else [])]
    return Audience(shown, tuple(dict.fromkeys(chosen)), numbers)
