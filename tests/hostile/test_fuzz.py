"""Some files damaged at random for every reader; more by ``python -m tests.hostile.fuzz``."""

from __future__ import annotations

import pytest

from tests.hostile.fuzz import KINDS, run

SEEDS = 60


@pytest.mark.parametrize("name", KINDS)
def test_damaged_files_are_sound_or_one_line(name: str) -> None:
    wrong = {seed: run(seed, KINDS[name]) for seed in range(SEEDS)}
    assert not {seed: how for seed, how in wrong.items() if how}
