"""Segments scans with models exported from nnU-Net: `load` here, or `python -m app`.

What it takes, torch first of all, is imported when `load` is called.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from volumes import command

if TYPE_CHECKING:
    from app.predict import Predictor

command.prepare(__name__, heeded=signal.SIGTERM)  # the first process of a container ignores it else


def load(
    model: str | os.PathLike[str] | None = None,
    device: str = "auto",
    *,
    exact: bool = False,
    step_size: float = 0.5,
    tta: bool = False,
    vram_budget: int | None = None,
    crop_to_body: bool = False,
) -> Predictor:
    """A model ready to predict: what `python -m app` makes of the same options.

    ``model``: a folder that `training.export` wrote, or the name of one in weights/; None: the one
    that weights/default names. ``device``: auto, cuda or cpu. ``step_size``: between windows, in
    patches, more than 0 and at most 1. ``vram_budget``: MiB of GPU memory, CUDA's context included;
    None: 4096. Raises ModelError for a model that is not there, damaged or does not fit the
    options, BudgetError where the budget is too small for one window, ValueError for an option.
    """
    from app.loading import find_device
    from app.memory.budget import budget_on
    from app.model import find_model, load_model
    from app.predict import Options, Predictor

    found = find_device(device)
    budget_mib = budget_on(found, vram_budget)
    options = Options(found, exact, step_size, tta, budget_mib, crop_to_body)
    loaded = load_model(find_model(None if model is None else os.fspath(model)))
    loaded.check_weights()
    return Predictor(loaded, options)
