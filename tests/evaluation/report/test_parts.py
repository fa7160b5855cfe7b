import base64
import gzip
import json
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from evaluation import settings
from evaluation.challenges import Challenge
from evaluation.conditions import usual
from evaluation.record import Record
from evaluation.report.audience import organisers
from evaluation.report.parts import LOG_CHARACTERS, Part, part
from evaluation.settings import Settings
from evaluation.states import State
from evaluation.store import Store
from evaluation.teams import Team
from tests.evaluation.challenges import FLARE23, FLARE24
from tests.evaluation.records import ACCURACY, RECORD, WITHOUT_GPU

TIMEOUT = replace(
    WITHOUT_GPU,
    case="case_2",
    state=State.TIMEOUT,
    message="stopped",
    accuracy=replace(ACCURACY, dsc=0.0, nsd=0.0),
    started="2024-11-23T10:00:00.000+00:00",
)


def packed(
    folder: Path, *records: Record, challenge: Challenge = FLARE24
) -> tuple[Part, dict[str, Any]]:
    store = Store(folder)
    for one in records:
        store.save(one)
    made = part((Team("a", store, None), challenge, 100, organisers()))
    return made, json.loads(gzip.decompress(base64.b64decode(made.details)))


def test_figures_count_failures_as_the_tables_do(tmp_path: Path) -> None:
    made, _ = packed(tmp_path, WITHOUT_GPU, TIMEOUT)
    assert made.summary["cases"] == 2
    assert made.summary["states"] == {"ok": 1, "timeout": 1}
    assert made.summary["figures"]["dsc"]["mean"] == ACCURACY.dsc / 2
    assert made.summary["figures"]["flare_time_s"]["beyond"] == 0
    assert "peak_vram_mib" not in made.summary["figures"], "not measured, and not 0"
    assert made.summary["first"] == RECORD.started
    assert made.summary["last"] == TIMEOUT.started


def test_a_case_beyond_a_limit_is_counted(tmp_path: Path) -> None:
    assert WITHOUT_GPU.usage is not None
    slow = replace(WITHOUT_GPU, usage=replace(WITHOUT_GPU.usage, flare_time_s=45.1))
    made, _ = packed(tmp_path, slow, TIMEOUT)
    assert made.summary["figures"]["flare_time_s"]["beyond"] == 1


def test_the_machines_failures_are_in_no_figure(tmp_path: Path) -> None:
    lost = replace(TIMEOUT, state=State.INFRA_ERROR, usage=None, accuracy=None)
    made, details = packed(tmp_path, WITHOUT_GPU, lost)
    assert made.summary["figures"]["dsc"]["n"] == 1
    assert details["columns"]["dsc"] == [ACCURACY.dsc, None]


def test_of_a_log_the_end_is_kept(tmp_path: Path) -> None:
    long = replace(TIMEOUT, log=("begin " + "x" * 2 * LOG_CHARACTERS, "the end"))
    _, details = packed(tmp_path, WITHOUT_GPU, long)
    assert set(details["logs"]) == {"case_2"}
    assert len(details["logs"]["case_2"]) == LOG_CHARACTERS
    assert details["logs"]["case_2"].endswith("x\nthe end")


def test_the_lesions_label_is_what_the_team_was_scored_by(tmp_path: Path) -> None:
    assert packed(tmp_path, WITHOUT_GPU)[0].summary["lesion_label"] == 1
    made, _ = packed(tmp_path, WITHOUT_GPU, challenge=FLARE23)
    assert made.summary["lesion_label"] == 14
    settings.save(Store(tmp_path), Settings("sha256:1", None, None, usual(FLARE24)))
    made, _ = packed(tmp_path, WITHOUT_GPU, challenge=FLARE23)
    assert made.summary["lesion_label"] == 1


def test_without_a_limit_no_case_is_beyond(tmp_path: Path) -> None:
    made, _ = packed(tmp_path, WITHOUT_GPU, challenge=FLARE23)
    assert "beyond" not in made.summary["figures"]["flare_time_s"]


def test_every_different_answer_is_a_fact(tmp_path: Path) -> None:
    gpus = [{"name": name, "driver": "570", "uuid": name} for name in ("A100", "H100", "A100")]
    records = [
        replace(WITHOUT_GPU, case=f"case_{i}", environment={"gpu": gpu, "hostname": "secret"})
        for i, gpu in enumerate(gpus)
    ]
    made, _ = packed(tmp_path, *records)
    assert made.summary["facts"] == {"GPU": ["A100", "H100"], "Driver": ["570"]}
