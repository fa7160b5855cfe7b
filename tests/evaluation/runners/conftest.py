"""Every engine that answers with an image that does what it is told, and processes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import engine
from tests.evaluation.runners.scripts import Scripts


@pytest.fixture(scope="module")
def images() -> Iterator[dict[str, engine.Image]]:
    """Of each engine used so far, an image whose predict.sh does what inputs/script says."""
    built: dict[str, engine.Image] = {}
    yield built
    for name, image in built.items():
        with engine.in_use(name):
            engine.remove_image(image)


@contextlib.contextmanager
def base_of(name: str, images: dict[str, engine.Image]) -> Iterator[str]:
    """Use an engine; the name of its image."""
    with engine.in_use(name):
        if name not in images:
            images[name] = engine.build_text(
                "ARG BASE_IMAGE=debian:bookworm-slim\nFROM ${BASE_IMAGE}\nWORKDIR /workspace\n"
                "RUN echo '. inputs/script' > predict.sh\n"
            )
        yield images[name].name


@pytest.fixture(params=engine.ENGINES)
def base(request: pytest.FixtureRequest, images: dict[str, engine.Image]) -> Iterator[str]:
    with base_of(request.param, images) as name:
        yield name


@pytest.fixture(params=[*engine.ENGINES, "process"])
def scripts(
    request: pytest.FixtureRequest, images: dict[str, engine.Image], tmp_path: Path
) -> Iterator[Scripts]:
    if request.param == "process":
        yield Scripts("process", None, tmp_path)
        return
    with base_of(request.param, images) as name:
        yield Scripts("container", name, tmp_path)
