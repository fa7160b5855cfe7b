"""The published networks are those that the papers count the parameters of."""

import math
from pathlib import Path

import pytest

from app.model import load_model
from app.networks import build_network
from app.predict import Options, Predictor
from benchmarks import published
from benchmarks.published import DKFZ, HUANG, Published, make_weights
from tests.app.published import PUBLISHED
from tests.nnunet_models import dataset
from training.plans import network, resolve_configuration

TINY = Published("tiny", "tiny", (3.0, 2.0, 2.0), (16, 32, 32), {})


@pytest.mark.parametrize(
    ("given", "paper", "millions"), [(HUANG, "5.6M", 5.6), (DKFZ, "102M", 101.94)]
)
def test_networks(given: Published, paper: str, millions: float) -> None:
    settings = resolve_configuration(given.plans(), published.CONFIGURATION)
    found = network(settings, 1, len(dataset()["labels"]))
    config = PUBLISHED[paper]
    assert found == config.network
    assert (given.spacing, given.patch_size) == (config.spacing, config.patch_size)
    count = sum(math.prod(p.shape) for p in build_network(found).parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.003)


def test_weights_without_nnunet_are_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(published, "has_nnunet", lambda: False)
    made = make_weights(TINY, tmp_path)
    model = load_model(made.model)
    assert model.config.patch_size == TINY.patch_size
    Predictor(model, Options(torch.device("cpu")))
    kernel = torch.load(made.trained / "fold_0" / "checkpoint_final.pth", weights_only=False)
    weights = kernel["network_weights"]["encoder.stages.1.0.convs.0.conv.weight"]
    assert float(weights.std()) == pytest.approx(math.sqrt(2 / weights[0].numel()), rel=0.1)
    before = (made.model / "model.json").stat().st_mtime_ns
    assert make_weights(TINY, tmp_path) == made
    assert (made.model / "model.json").stat().st_mtime_ns == before
    other = Published("tiny", "tiny", (3.0, 1.0, 1.0), (16, 32, 32), {})
    assert load_model(make_weights(other, tmp_path).model).config.spacing == (3.0, 1.0, 1.0)
