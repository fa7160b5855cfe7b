"""training.lesion_filter: which filter is chosen, and what is said of it."""

from __future__ import annotations

from training.lesion_filter import FILTERS, Choice, Effect, Judged


def judged(*dsc: float, lesions: int = 1, healthy: int = 0) -> tuple[Judged, ...]:
    """Cases of these scores, the last ones healthy."""
    ill = len(dsc) - healthy
    return tuple(Judged(d, d, lesions, n >= ill) for n, d in enumerate(dsc))


def choice(**better: tuple[Judged, ...]) -> Choice:
    """All filters the same but those named by volume and probability, as v1_p0."""
    base = judged(0.5, 0.5, 0.0, healthy=1, lesions=4)
    names = {f"v{r.min_volume_ml:g}_p{r.min_probability:g}".replace(".", ""): r for r in FILTERS}
    assert better.keys() <= names.keys()
    effects = [Effect(rule, better.get(name, base)) for name, rule in names.items()]
    return Choice(tuple(effects), "made up")


def test_nothing_is_chosen_where_nothing_helps() -> None:
    worse = judged(0.4, 0.5, 0.0, healthy=1)
    assert choice(v1_p0=worse).chosen is None
    unseen = judged(0.50001, 0.5, 0.0, healthy=1)  # beyond four digits
    assert choice(v1_p0=unseen).chosen is None
    assert choice(v1_p0=worse).verdict == (
        "No lesion filter raises the mean DSC of 3 cases, 1 of them healthy (made up)."
    )
    assert "**" not in choice(v1_p0=worse).markdown()


def test_a_healthy_case_outweighs_what_a_lesion_loses() -> None:
    found = choice(v1_p0=judged(0.4, 0.4, 1.0, healthy=1), v2_p0=judged(0.6, 0.5, 0.0, healthy=1))
    assert found.chosen is not None
    assert (found.chosen.min_volume_ml, found.chosen.min_probability) == (1.0, 0.0)
    assert found.chosen.evidence == (
        "3 cases, 1 of them healthy (made up): mean DSC 0.3333 -> 0.6000, NSD 0.3333 -> 0.6000, "
        "healthy cases with false positives 1 -> 0, lesions 12 -> 3. "
        "The thresholds were chosen on these same cases; expect less on others."
    )
    assert found.verdict.startswith(
        "Lesion filter: 1 ml and a probability of 0 at least. 3 cases, 1 of them healthy"
    )


def test_ties_go_to_the_weakest() -> None:
    def thresholds(**better: tuple[Judged, ...]) -> tuple[float, float]:
        chosen = choice(**better).chosen
        assert chosen is not None
        return chosen.min_volume_ml, chosen.min_probability

    few, many = (judged(0.6, 0.6, 1.0, healthy=1, lesions=n) for n in (1, 2))
    assert thresholds(v5_p0=few, v1_p07=many, v05_p09=few) == (1.0, 0.7)
    assert thresholds(v2_p0=few, v1_p07=few, v1_p08=few) == (1.0, 0.7)


def test_the_table() -> None:
    table = choice(v1_p07=judged(0.6, 0.6, 1.0, healthy=1)).markdown().splitlines()
    assert table[0].startswith("Mean DSC of 3 cases, 1 of them healthy (made up) by the least")
    assert "in brackets, in how many of 1 healthy ones a lesion is seen" in table[0]
    assert table[2] == "|  | any probability | 0.6 | 0.7 | 0.8 | 0.9 | 0.95 | 0.99 |"
    assert table[4].startswith("| any volume | 0.3333 (1) | 0.3333 (1) |")
    assert table[8] == "| 1 ml | 0.3333 (1) | 0.3333 (1) | **0.7333 (0)** |" + 4 * " 0.3333 (1) |"
    assert len({line.count("|") for line in table[2:12]}) == 1
    without = Choice(tuple(Effect(rule, judged(0.5)) for rule in FILTERS), "made up")
    assert "(0)" not in without.markdown()
    assert "in brackets" not in without.markdown()
