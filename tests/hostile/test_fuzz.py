"""Some files damaged at random for every reader; more by ``python -m tests.hostile.fuzz``."""

from __future__ import annotations

import pytest

from tests.hostile.fuzz import FOUND, KINDS, run

SEEDS = 100


@pytest.mark.parametrize("name", KINDS)
def test_damaged_files_are_sound_or_one_line(name: str) -> None:
    wrong = {seed: run(seed, KINDS[name]) for seed in range(SEEDS)}
    assert not {seed: how for seed, how in wrong.items() if how}


@pytest.mark.parametrize(("name", "seed"), FOUND)
def test_what_was_found_once_stays_mended(name: str, seed: int) -> None:
    assert run(seed, KINDS[name]) is None
