"""run.json: a run goes on with what it began with, also one of before there were challenges."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from msgspec.structs import replace

from evaluation import settings
from evaluation.conditions import Conditions, usual
from evaluation.errors import EvaluationError
from evaluation.runners import WITHOUT_SANDBOX, Limits
from evaluation.settings import Settings
from evaluation.store import Store
from tests.evaluation.challenges import CONDITIONS, FLARE23, FLARE24, GRAND_CHALLENGE

# As version 1.0 wrote it.
OLD: dict[str, Any] = {
    "submission": "sha256:1",
    "source": None,
    "contract": "flare",
    "limits": {
        "profile": "sandbox",
        "memory_mib": 28672,
        "shm_mib": 28672,
        "pids": 4096,
        "tmp_mib": 8192,
        "output_mib": 4096,
        "locked_down": True,
    },
    "timeout_s": 3600.0,
    "interval_s": 0.02,
    "scoring": "flare24",
    "gpu": "GPU-1",
}
NOW = Settings("sha256:1", None, "GPU-1", CONDITIONS)


def of(conditions: Conditions) -> Settings:
    return replace(NOW, conditions=conditions)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path / "run")
    assert settings.load(store) is None
    settings.save(store, NOW)
    assert settings.load(store) == NOW
    settings.check(store, NOW, resume=True)
    with pytest.raises(EvaluationError, match="holds an evaluation; --resume goes on with it"):
        settings.check(store, NOW, resume=False)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (replace(NOW, submission="sha256:2"), "(submission was sha256:1, is sha256:2)"),
        (replace(NOW, gpu=None), "(gpu was GPU-1, is None)"),
        (of(replace(CONDITIONS, interval_s=0.1)), "(interval_s was 0.02, is 0.1)"),
        (
            of(replace(CONDITIONS, limits=WITHOUT_SANDBOX)),
            "(pids was 4096, is None; sandboxed was True, is False; tmp_mib was 8192, is None)",
        ),
        (
            of(usual(structs.replace(FLARE24, name="mine"))),
            "(name was flare24, is mine)",
        ),
        (of(GRAND_CHALLENGE), "(command has other values; input_sockets has other values; inputs"),
    ],
)
def test_what_differs_is_said(tmp_path: Path, other: Settings, said: str) -> None:
    store = Store(tmp_path)
    settings.save(store, NOW)
    with pytest.raises(EvaluationError) as caught:
        settings.check(store, other, resume=True)
    assert said in str(caught.value)


def test_how_a_challenge_ranks_may_change(tmp_path: Path) -> None:
    settings.save(Store(tmp_path), NOW)
    other = structs.replace(FLARE24, ranking=FLARE23.ranking)
    settings.check(Store(tmp_path), of(replace(CONDITIONS, challenge=other)), resume=True)


def test_a_run_of_before_challenges_can_be_resumed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    of_before_contracts = {name: value for name, value in OLD.items() if name != "contract"}
    for old in (OLD, of_before_contracts):
        store.settings.write_text(json.dumps(old))
        assert settings.load(store) == NOW
        settings.check(store, NOW, resume=True)
    store.settings.write_text(json.dumps(OLD | {"scoring": "flare23"}))
    with pytest.raises(EvaluationError, match="name was flare23, is flare24"):
        settings.check(store, NOW, resume=True)


def test_one_of_another_contract_is_told_apart(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.settings.write_text(json.dumps(OLD | {"contract": "grand-challenge ct:lesions"}))
    with pytest.raises(EvaluationError, match="name was flare24 with grand-challenge ct:lesions, "):
        settings.check(store, NOW, resume=True)


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[1]", "3", "{}"),
        *(json.dumps(OLD | change) for change in ({"limits": 0}, {"scoring": "x"}, {"gpu": 0})),
    ],
)
def test_damaged_settings_are_named(tmp_path: Path, content: str) -> None:
    store = Store(tmp_path)
    store.settings.write_text(content)
    with pytest.raises(
        EvaluationError, match=r"run\.json: not what a run writes .*; choose another --output"
    ):
        settings.load(store)


def test_limits_are_those_of_the_sandbox() -> None:
    assert NOW.conditions.limits == Limits()
