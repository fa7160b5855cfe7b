"""A ranking for people and other programs: ranking.md, ranking.csv, and what challengeR reads."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from evaluation.numbers import counted
from evaluation.ranking.outcomes import Outcomes
from evaluation.ranking.ranking import ranked_values
from evaluation.ranking.ranking_file import RankedTeam, Ranking
from evaluation.ranking.rules import RankingRules
from evaluation.ranking.stability import interval
from evaluation.tables import markup
from evaluation.tables.markup import Table

METHOD = (
    "Score: the weighted mean over the metrics of a team's ranks, smaller is better."
    " rank-then-aggregate: the mean of its ranks case by case; aggregate-then-rank: the rank of its"
    " mean; test-then-rank: the rank of how many others it is significantly better than. Teams that"
    " tie in a case or a metric get the mean of their ranks; teams with the same score share a"
    " place (=), and the next are counted from all before them."
)
FAILED = (
    "A failed case counts with the challenge's penalty in every metric, whatever it used before it"
    " failed; no value counts as worse than that."
)
RESAMPLES = (
    "A resample draws as many cases as there are, with replacement. Kendall's tau (tau-b) compares"
    " its places with those of all cases: 1 is the same order, 0 no relation."
)
MEANS = (
    "In brackets between what 95 % of the resamples have the mean. Penalties stand in the place of"
    " failed cases, and tolerances are subtracted."
)
SIGNIFICANCE = (
    "One-sided Wilcoxon signed rank tests over the cases, Holm-adjusted within a metric over all"
    " ordered pairs of teams."
)


def markdown(ranking: Ranking) -> str:
    """Return the ranking as Markdown: places, means, stability, significance, what was left out."""
    profile = ranking.profile
    weights = ", ".join(f"{metric.name} (weight {metric.weight:g})" for metric in profile.metrics)
    head = (
        f"{counted(len(ranking.teams), 'team')}, {counted(len(ranking.cases), 'case')}, scored by"
        f" {ranking.scoring}, ranked by {profile.name}: {profile.method} of {weights}."
    )
    numbered = [markup.markdown(table, number) for number, table in enumerate(_all(ranking), 1)]
    return "\n".join(["# Ranking", "", f"{head}\n", *numbered])


def latex(ranking: Ranking) -> str:
    """Return the tables of `markdown` in LaTeX, with the packages booktabs and longtable."""
    return "\n".join([markup.LATEX_HEAD, *map(markup.latex, _all(ranking))])


def _all(ranking: Ranking) -> list[Table]:
    tables = [_places(ranking), _means(ranking), _stability(ranking), _significance(ranking)]
    if ranking.unranked:
        lines = tuple((team.name, team.reason) for team in ranking.unranked)
        tables.append(Table("Teams without a place.", ("Team", "Reason"), lines))
    if ranking.excluded:
        tables.append(_excluded(ranking))
    return tables


def rows(ranking: Ranking) -> list[dict[str, object]]:
    """Return ranking.csv: one row a team."""
    own = ranking.methods[ranking.profile.method]
    bounds = [interval(np.array(counts)) for counts in own.place_counts]
    return [
        {
            "place": own.places[i],
            "team": team.name,
            "score": own.scores[i],
            "place_low": bounds[i][0],
            "place_high": bounds[i][1],
            **{f"place_{name}": one.places[i] for name, one in ranking.methods.items()},
            **{f"mean_{column}": value for column, value in team.means.items()},
            **{f"mean_{column}_low": low for column, (low, _) in team.intervals.items()},
            **{f"mean_{column}_high": high for column, (_, high) in team.intervals.items()},
            **{f"rank_{column}": ranks[i] for column, ranks in own.metric_ranks.items()},
            "failed": team.failed,
            "missing": team.missing,
        }
        for i, team in enumerate(ranking.teams)
    ]


def challenger_rows(outcomes: Outcomes, rules: RankingRules) -> list[dict[str, object]]:
    """Return challenger.csv: one row a team and case, with what is ranked of every metric.

    In R, one metric at a time: as.challenge(data, by = "task", algorithm = "algorithm",
    case = "case", value = "dsc", smallBetter = FALSE).
    """
    values = ranked_values(outcomes, rules)
    columns = [metric.column for metric in rules.metrics]
    return [
        {"task": outcomes.scoring, "case": case, "algorithm": team.name}
        | dict(zip(columns, values[:, i, j].tolist(), strict=True))
        for i, team in enumerate(outcomes.teams)
        for j, case in enumerate(outcomes.cases)
    ]


def _places(ranking: Ranking) -> Table:
    own = ranking.methods[ranking.profile.method]
    others = {name: one for name, one in ranking.methods.items() if one is not own}
    bounds = [interval(np.array(counts)) for counts in own.place_counts]
    first = [counts[0] / ranking.resamples for counts in own.place_counts]
    columns = [
        ("Team", _names(ranking)),
        ("Place", _shown(own.places)),
        ("Score", [f"{score:.3f}" for score in own.scores]),
        ("Place in 95 % of resamples", [f"{low} to {high}" for low, high in bounds]),
        ("First in resamples", [f"{share:.1%}" for share in first]),
        *((f"Place by {name}", _shown(one.places)) for name, one in others.items()),
        ("Failed cases", list(map(_failures, ranking.teams))),
    ]
    return Table.of_columns("Places.", columns, METHOD, FAILED)


def _names(ranking: Ranking) -> list[str]:
    return [team.name for team in ranking.teams]


def _shown(places: Sequence[int]) -> list[str]:
    """Return places, a shared one with =."""
    count = Counter(places)
    return [f"{place}=" if count[place] > 1 else str(place) for place in places]


def _failures(team: RankedTeam) -> str:
    return f"{team.failed} ({team.missing} without a result)" if team.missing else str(team.failed)


def _means(ranking: Ranking) -> Table:
    own = ranking.methods[ranking.profile.method]
    columns = [("Team", _names(ranking))]
    for metric in ranking.profile.metrics:
        of_teams = [
            (team.means[metric.column], *team.intervals[metric.column]) for team in ranking.teams
        ]
        columns.append(
            (metric.name, [f"{m:.4g} ({low:.4g} to {high:.4g})" for m, low, high in of_teams])
        )
        columns.append((f"Place in {metric.name}", _shown(own.metric_places[metric.column])))
    caption = "Means over the cases of what was ranked, and the places by each alone."
    return Table.of_columns(caption, columns, MEANS)


def _stability(ranking: Ranking) -> Table:
    lines = []
    for name, standing in ranking.methods.items():
        taus = [tau for tau in standing.taus if tau is not None]
        spread = "undefined"
        if taus:
            low, median, high = np.quantile(taus, (0.25, 0.5, 0.75))
            spread = f"{median:.3f} ({low:.3f}, {high:.3f})"
        winners = [i for i, place in enumerate(standing.places) if place == 1]
        kept = min(standing.place_counts[i][0] for i in winners) / ranking.resamples
        lines.append((name, spread, f"{kept:.1%}"))
    head = ("Method", "Kendall's tau: median (Q1, Q3)", "The winner is first in")
    caption = f"Stability in {ranking.resamples} resamples of the cases (seed {ranking.seed})."
    return Table(caption, head, tuple(lines), (RESAMPLES,))


def _significance(ranking: Ranking) -> Table:
    columns = [("Team", _names(ranking))]
    for metric in ranking.profile.metrics:
        better = np.array(ranking.significance[metric.column]) <= ranking.profile.alpha
        counts = zip(better.sum(axis=1), better.sum(axis=0), strict=True)
        columns.append((metric.name, [f"{wins} / {losses}" for wins, losses in counts]))
    caption = (
        "How many other teams a team is significantly better / worse than (p at most"
        f" {ranking.profile.alpha:g})."
    )
    return Table.of_columns(caption, columns, SIGNIFICANCE)


def _excluded(ranking: Ranking) -> Table:
    lines = tuple((gap.case, gap.team or "all", gap.reason) for gap in ranking.excluded)
    caption = "Cases that were ranked for no team, and whose result is missing."
    return Table(caption, ("Case", "Team", "Reason"), lines)
