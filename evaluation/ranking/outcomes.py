"""What all teams came to in all cases, as arrays: nothing mixed, nothing dropped in silence."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evaluation.challenges import Challenge
from evaluation.errors import EvaluationError
from evaluation.gpu.curve import area_above
from evaluation.gpu.curve_file import read_curve
from evaluation.ranking.ranking_file import Excluded, Unranked
from evaluation.ranking.rules import Metric, RankingRules
from evaluation.ranking.selection import Selection
from evaluation.record import AREA_ABOVE, Record, Vram, row
from evaluation.scoring.assess import Accuracy
from evaluation.states import State
from evaluation.teams import Team

Missing = Literal["refuse", "failed", "exclude"]
Records = dict[str, dict[str, Record]]  # by team, then case

SHOWN = 3  # gaps named in a message


@dataclass(frozen=True, eq=False)
class Outcomes:
    """M metrics of T teams in C cases.

    values: (M, T, C) as measured, NaN where `failed` holds. failed: (T, C), every state but ok, and
    `missing` ones. missing: (T, C), without a result.
    """

    scoring: str
    teams: tuple[Team, ...]
    cases: tuple[str, ...]
    values: NDArray[np.float64]
    failed: NDArray[np.bool_]
    missing: NDArray[np.bool_]
    excluded: tuple[Excluded, ...]
    unranked: tuple[Unranked, ...]

    def in_order(self, order: Sequence[int]) -> "Outcomes":
        """Return the same with the teams in another order."""
        return replace(
            self,
            teams=tuple(self.teams[i] for i in order),
            values=self.values[:, order],
            failed=self.failed[order],
            missing=self.missing[order],
        )


def without_gpu(rules: RankingRules) -> RankingRules:
    """Return a ranking without what is measured of the GPU.

    Raises EvaluationError when nothing is left.
    """
    metrics = tuple(metric for metric in rules.metrics if not _is_of_gpu(metric.column))
    if not metrics:
        raise EvaluationError(f"{rules.name} ranks by GPU memory alone: leave out --without-gpu")
    return RankingRules(f"{rules.name}-without-gpu", rules.method, metrics, rules.alpha)


def _is_of_gpu(column: str) -> bool:
    return bool(AREA_ABOVE.fullmatch(column)) or column in Vram.__struct_fields__


def collect(
    entrants: Sequence[Team], challenge: Challenge, missing: Missing, selection: Selection
) -> Outcomes:
    """Read every record and see that they can be ranked together.

    missing: what becomes of a case that a team has no result of, though another has: "refuse" it,
    count it as "failed", or "exclude" it for all teams. Raises EvaluationError that names team and
    case: of a gap that is refused, of records made with other references, scans or scoring, and of
    a metric that was not measured.
    """
    teams, unranked = selection.of_teams(entrants)
    if not teams:
        left = "; ".join(f"{team.name}: {team.reason}" for team in unranked)
        raise EvaluationError(f"no team is left to rank ({left}); see --only and --without")
    read = {team.name: {one.case: one for one in team.records()} for team in teams}
    recorded = {case for results in read.values() for case in results}
    selection.check(entrants, recorded)
    cases, left_out = selection.of_cases(recorded)
    records = {
        team: {case: one for case, one in results.items() if case in cases}
        for team, results in read.items()
    }
    _check_scoring(teams, records, challenge)
    _check_files(records)
    gaps = [
        Excluded(case, team.name, reason)
        for team in teams
        for case in cases
        if (reason := _gap(records[team.name].get(case)))
    ]
    if gaps and missing == "refuse":
        raise EvaluationError(_refusal(gaps, len(cases)))
    excluded = {gap.case for gap in gaps} if missing == "exclude" else set()
    kept = tuple(case for case in cases if case not in excluded)
    if not kept:
        raise EvaluationError("no case is left that every team has a result of; --missing failed")
    gap_of = {(gap.team, gap.case) for gap in gaps}
    good = np.zeros((len(teams), len(kept)), np.bool_)
    values = np.full((len(challenge.ranking.metrics), *good.shape), np.nan)
    for i, team in enumerate(teams):
        for j, case in enumerate(kept):
            one = records[team.name].get(case)
            if one is not None and one.is_scored and one.state is State.OK:
                good[i, j] = True
                values[:, i, j] = _measured(team, one, challenge)
    return Outcomes(
        scoring=challenge.name,
        teams=tuple(teams),
        cases=kept,
        values=values,
        failed=~good,
        missing=np.array([[(team.name, case) in gap_of for case in kept] for team in teams]),
        excluded=tuple([*left_out, *gaps] if missing == "exclude" else left_out),
        unranked=tuple(unranked),
    )


def _every(records: Records) -> Iterable[tuple[str, Record]]:
    return ((team, one) for team, results in records.items() for one in results.values())


def _check_scoring(teams: Sequence[Team], records: Records, challenge: Challenge) -> None:
    """See that every case was scored as the challenge has it."""
    for team in teams:
        own = team.challenge()
        if own is not None and own.scoring != challenge.scoring:
            raise EvaluationError(
                f"{team.name} was scored by {own.name}, whose rules are not those of"
                f" {challenge.name}; score all teams by the same --challenge"
            )
    names = {one.name for one in challenge.scoring.classes}
    scored = [(team, one) for team, one in _every(records) if one.accuracy is not None]
    if not scored:
        raise EvaluationError("no team has a case that was scored; nothing can be ranked")
    for name, one in scored:
        if one.accuracy and one.accuracy.classes.keys() != names:
            raise EvaluationError(
                f"{name}, {one.case} has scores of {', '.join(sorted(one.accuracy.classes))}, and"
                f" {challenge.name} has {', '.join(sorted(names))}; give the --challenge that all"
                " teams were scored by"
            )


def _check_files(records: Records) -> None:
    """See that a case is one scan and one reference, whoever was judged by it."""
    first: dict[str, tuple[str, Record]] = {}
    for team, one in _every(records):
        if not one.is_scored:
            continue
        before, known = first.setdefault(one.case, (team, one))
        for what, is_same in (
            ("scan", one.scans_sha256 == known.scans_sha256),
            ("reference", one.reference_sha256 == known.reference_sha256),
        ):
            if not is_same:
                raise EvaluationError(
                    f"case {one.case}: {before} and {team} were judged by different {what}s; run"
                    " both on the same, or rank them apart"
                )


def _gap(one: Record | None) -> str:
    """Say why there is nothing to rank of a case; empty where there is."""
    if one is None:
        return "no result"
    if one.state is State.INFRA_ERROR:
        return f"{one.state}: {one.message}"
    return "" if one.is_scored else "measured, but not scored"


def _refusal(gaps: Sequence[Excluded], cases: int) -> str:
    named = "; ".join(f"{gap.team}, {gap.case}: {gap.reason}" for gap in gaps[:SHOWN])
    more = f"; and {len(gaps) - SHOWN} more" if len(gaps) > SHOWN else ""
    return (
        f"not every team has a result of all {cases} cases ({named}{more}); run them with --resume,"
        " or say how they count: --missing failed, or --missing exclude for all teams"
    )


def _measured(team: Team, one: Record, challenge: Challenge) -> list[float]:
    """Return what is ranked of a case that went well; raises EvaluationError for a gap in it."""
    known = row(one, challenge.limits)
    return [_value(metric, known, team, one) for metric in challenge.ranking.metrics]


def _value(metric: Metric, known: Mapping[str, object], team: Team, one: Record) -> float:
    column = metric.column
    above = AREA_ABOVE.fullmatch(column)
    if above and known.get(column) is None and one.vram and one.usage:
        curve = read_curve(team.store.curve(one.case))
        level_mib = float(above.group(1))
        return area_above(curve, 0.0, one.usage.runtime_s, one.vram.baseline_mib, level_mib)
    if column not in known and not above:
        raise EvaluationError(
            f"the challenge ranks by {column!r}, which is no column of results.csv; there are"
            f" {', '.join(known)}"
        )
    value = known.get(column)
    if isinstance(value, int | float):
        return float(value)
    is_undefined = value is None and column in Accuracy.__struct_fields__
    if is_undefined and metric.undefined is not None:
        return metric.undefined
    remedy = "rank by a --challenge without it, a file of your own"
    if is_undefined:
        finding = "is undefined, as where neither mask has a lesion"
        remedy = f"say what it counts there, with `undefined = ...` in the challenge, or {remedy}"
    elif value is None:
        finding = "was not measured"
        remedy = "add --without-gpu" if _is_of_gpu(column) else remedy
    else:
        finding = f"is {value!r}, no number"
    raise EvaluationError(f"{team.name}, {one.case}: {column} {finding}; {remedy}")
