"""Which teams and cases of a results folder are ranked."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from evaluation.errors import EvaluationError
from evaluation.ranking.ranking_file import Excluded, Unranked
from evaluation.teams import Team


@dataclass(frozen=True)
class Selection:
    """What was asked for; as it is made without arguments, everything.

    cases: the challenge's, whatever else has a record; None: all that have one. only, without:
    names of teams and cases. Of `only`, names of cases choose among the cases, and those of teams
    among the teams.
    """

    cases: frozenset[str] | None = None
    only: frozenset[str] = frozenset()
    without: frozenset[str] = frozenset()

    def of_teams(self, teams: Sequence[Team]) -> tuple[list[Team], list[Unranked]]:
        """Return those that are ranked, and the others with the reason. A refused team never is."""
        asked = self._kept(team.name for team in teams)
        ranked, unranked = [], []
        for team in teams:
            if team.entry is not None and team.is_refused:
                unranked.append(Unranked(team.name, f"refused: {team.entry.message}"))
            elif team.name in asked:
                ranked.append(team)
            else:
                unranked.append(Unranked(team.name, "not ranked, as asked"))
        return ranked, unranked

    def of_cases(self, recorded: Iterable[str]) -> tuple[list[str], list[Excluded]]:
        """Return the cases that are ranked, in order, and the recorded ones that are not."""
        recorded = frozenset(recorded)
        known = recorded if self.cases is None else self.cases
        asked = self._kept(known)
        left = [
            Excluded(case, "", "as asked" if case in known else "not among --cases")
            for case in sorted(recorded - asked)
        ]
        return sorted(asked), left

    def check(self, teams: Sequence[Team], cases: Iterable[str]) -> None:
        """Raise EvaluationError for a name that is neither a team's nor a case's.

        cases: the recorded ones; of `only`, one beside the challenge's cannot be chosen.
        """
        names, recorded = {team.name for team in teams}, {*cases}
        chosen = self.only - names - (recorded if self.cases is None else self.cases)
        left_out = self.without - names - recorded - (self.cases or frozenset())
        unknown = sorted(chosen | left_out)
        if unknown:
            raise EvaluationError(
                f"{', '.join(unknown)}: no team and no case of these results; there are"
                f" {', '.join(team.name for team in teams)}"
            )

    def _kept(self, names: Iterable[str]) -> frozenset[str]:
        every = frozenset(names)
        return ((self.only & every) or every) - self.without
