from pathlib import Path

import numpy as np
from msgspec.structs import replace
from PIL import Image

from evaluation.record import Record
from evaluation.report.overlays import overlays
from evaluation.states import State
from evaluation.store import Store
from tests.evaluation.records import ACCURACY, RECORD


def case(store: Store, name: str, dsc: float, *, lesions: int = 2, drawn: str = "worst") -> Record:
    one = replace(RECORD, case=name, accuracy=replace(ACCURACY, dsc=dsc, lesion_count=lesions))
    store.save(one)
    for lesion in drawn.split():
        path = store.picture("overlays", f"{name}-{lesion}")
        path.parent.mkdir(exist_ok=True)
        width = {"worst": 30, "largest": 20}[lesion]
        Image.fromarray(np.full((10, width), 99, np.uint8)).save(path)
    return one


def test_the_best_and_the_worst_cases_from_their_extremes_on(tmp_path: Path) -> None:
    store = Store(tmp_path)
    scores = {"a": 0.1, "b": 0.9, "c": 0.5, "d": 0.4, "e": 0.8, "f": 0.2}
    chosen = overlays(store, [case(store, name, dsc) for name, dsc in scores.items()])
    assert [(one.which, one.case, one.dsc) for one in chosen] == [
        ("best", "b", 0.9),
        ("best", "e", 0.8),
        ("worst", "a", 0.1),
        ("worst", "f", 0.2),
    ]
    assert chosen[0].webp[8:12] == b"WEBP"


def test_a_case_is_shown_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    three = [case(store, name, dsc) for name, dsc in (("a", 0.1), ("b", 0.2), ("c", 0.3))]
    assert [one.case for one in overlays(store, three)] == ["c", "b", "a"]
    assert [one.which for one in overlays(store, three[:1])] == ["best"]
    assert overlays(store, []) == []


def test_failures_healthy_cases_and_those_without_a_picture_are_none(tmp_path: Path) -> None:
    store = Store(tmp_path)
    failed = replace(case(store, "a", 0.0), state=State.TIMEOUT)
    healthy = case(store, "b", 1.0, lesions=0)
    undrawn = case(store, "c", 0.7, drawn="")
    assert overlays(store, [failed, healthy, undrawn]) == []


def test_the_worst_lesion_is_shown_where_there_are_several(tmp_path: Path) -> None:
    store = Store(tmp_path)
    both, only = (
        case(store, "a", 0.5, drawn="worst largest"),
        case(store, "b", 0.4, drawn="largest"),
    )
    assert [one.width for one in overlays(store, [both, only])] == [30, 20]
