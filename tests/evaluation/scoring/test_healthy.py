import pytest

from evaluation.scoring.healthy import Healthy


def row(
    reference_ml: float | None, predicted_ml: float | None, status: str = "ok"
) -> dict[str, object]:
    return {"status": status, "reference_ml": reference_ml, "predicted_ml": predicted_ml}


def test_by_hand() -> None:
    rows = [row(0.0, 1.5), row(2.0, 3.0), row(0.0, 0.0), row(0.0, 0.5), row(1.0, None, "timeout")]
    found = Healthy.of(rows)
    assert (found.cases, found.failed, found.alarms) == (3, 0, 2)
    assert found.rate == pytest.approx(2 / 3)
    assert found.ml_per_case == pytest.approx(2 / 3)


def test_a_failed_case_is_an_alarm_and_has_no_volume() -> None:
    found = Healthy.of([row(0.0, 0.0), row(0.0, None, "nonzero_exit")])
    assert (found.rate, found.ml_per_case) == (0.5, 0.0)
    found = Healthy.of([row(0.0, None, "oom_ram")])
    assert (found.rate, found.ml_per_case) == (1.0, None)


def test_there_may_be_none() -> None:
    for rows in ([], [row(1.0, 0.0)], [row(None, None, "infra_error")]):
        assert (Healthy.of(rows).rate, Healthy.of(rows).ml_per_case) == (None, None)
