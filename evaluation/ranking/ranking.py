"""One ranking of all teams: by each method, in every resample, and with which differences count."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.ranking.methods import METRIC_RANKS, Counts, case_ranks, scores
from evaluation.ranking.outcomes import Outcomes
from evaluation.ranking.places import Floats, places
from evaluation.ranking.ranking_file import RankedTeam, Ranking, Standing
from evaluation.ranking.rules import METHODS, Method, Metric, RankingRules
from evaluation.ranking.signed_rank import holm, one_sided_p
from evaluation.ranking.stability import QUANTILES, kendall_tau, place_counts, resample


def rank(outcomes: Outcomes, rules: RankingRules, resamples: int = 1000, seed: int = 0) -> Ranking:
    """Rank the teams as a challenge does, and by the other methods beside it.

    resamples: of the cases, with replacement, drawn from `seed`. Neither the order of teams nor
    what they are called changes anything but the order within a shared place, the alphabetical one.
    """
    outcomes = outcomes.in_order(_order(outcomes, rules))
    values = ranked_values(outcomes, rules)
    losses = _losses(values, rules)
    counts = np.vstack([_once(losses), resample(len(outcomes.cases), resamples, seed)])
    columns = [metric.column for metric in rules.metrics]
    bounds = _intervals(values, counts[1:])
    p = [holm(one_sided_p(one, _once(losses)))[0] for one in losses]
    return Ranking(
        scoring=outcomes.scoring,
        profile=rules,
        resamples=resamples,
        seed=seed,
        cases=outcomes.cases,
        excluded=outcomes.excluded,
        teams=_teams(outcomes, columns, values.mean(axis=2), bounds),
        unranked=outcomes.unranked,
        methods={method: _standing(method, losses, counts, rules) for method in METHODS},
        case_ranks=dict(zip(columns, map(_rows, case_ranks(losses)), strict=True)),
        significance=dict(zip(columns, map(_rows, p), strict=True)),
    )


def ranked_values(outcomes: Outcomes, rules: RankingRules) -> Floats:
    """Return what is ranked (M, T, C): penalties for failed cases, tolerances subtracted."""
    return np.stack(
        [
            _ranked(metric, values, outcomes.failed)
            for metric, values in zip(rules.metrics, outcomes.values, strict=True)
        ]
    )


def _ranked(metric: Metric, values: Floats, failed: NDArray[np.bool_]) -> Floats:
    """Return what is ranked of measured values: none worse than a failure, less the tolerance.

    values, failed: (T, C); a value where `failed` holds is not looked at.
    """
    if metric.better == "larger":
        return np.where(failed, metric.failed, np.maximum(values, metric.failed))
    worst = np.where(failed, metric.failed, np.minimum(values, metric.failed))
    return np.maximum(worst - metric.tolerance, 0.0) if metric.tolerance else worst


def _losses(values: Floats, rules: RankingRules) -> Floats:
    """Return values (M, T, C) so that smaller is better."""
    signs = [-1.0 if metric.better == "larger" else 1.0 for metric in rules.metrics]
    losses: Floats = values * np.array(signs)[:, None, None]
    return losses


def _order(outcomes: Outcomes, rules: RankingRules) -> list[int]:
    """Return the teams by their places, those that share one by name."""
    losses = _losses(ranked_values(outcomes, rules), rules)
    own = _standing(rules.method, losses, _once(losses), rules).places
    names = [team.name for team in outcomes.teams]
    return sorted(range(len(names)), key=lambda team: (own[team], names[team]))


def _standing(method: Method, losses: Floats, counts: Counts, rules: RankingRules) -> Standing:
    """Return the ranking by a method; counts (1 + B, C): every case once, then the resamples."""
    metric_ranks = METRIC_RANKS[method](losses, counts, rules.alpha)
    weights = np.array([metric.weight for metric in rules.metrics])
    of_teams = scores(metric_ranks, weights)
    placed = places(of_teams)
    own, resampled = placed[0], placed[1:]
    by_metric = [metric.column for metric in rules.metrics], metric_ranks[0]
    taus = kendall_tau(own, resampled)
    return Standing(
        scores=tuple(of_teams[0].tolist()),
        places=tuple(own.tolist()),
        metric_ranks={name: tuple(ranks.tolist()) for name, ranks in zip(*by_metric, strict=True)},
        metric_places={
            name: tuple(places(ranks).tolist()) for name, ranks in zip(*by_metric, strict=True)
        },
        place_counts=_rows(place_counts(resampled)),
        taus=tuple(None if np.isnan(tau) else tau for tau in taus.tolist()),
    )


def _intervals(values: Floats, counts: Counts) -> Floats:
    """Return between what 95 % of the resamples have the means of values (M, T, C): (2, M, T)."""
    means = values @ counts.T.astype(np.float64) / values.shape[2]
    bounds: Floats = np.quantile(means, QUANTILES, axis=2)
    return bounds


def _teams(
    outcomes: Outcomes, columns: Sequence[str], means: Floats, bounds: Floats
) -> tuple[RankedTeam, ...]:
    """Return the teams. means: (M, T). bounds: (2, M, T)."""
    return tuple(
        RankedTeam(
            name=team.name,
            digest=team.digest(),
            failed=int(outcomes.failed[i].sum()),
            missing=int(outcomes.missing[i].sum()),
            means=dict(zip(columns, means[:, i].tolist(), strict=True)),
            intervals=dict(zip(columns, map(tuple, bounds[:, :, i].T.tolist()), strict=True)),
        )
        for i, team in enumerate(outcomes.teams)
    )


def _once(losses: Floats) -> Counts:
    """Return the counts (1, C) of the ranking itself: every case once."""
    return np.ones((1, losses.shape[2]), np.int64)


def _rows(table: NDArray[Any]) -> tuple[tuple[Any, ...], ...]:
    return tuple(tuple(row) for row in table.tolist())
