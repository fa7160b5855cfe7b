"""Preloaded by dask into workers: an engine that is silent for some seconds has failed."""

from evaluation.runners import docker


def dask_setup(_: object) -> None:
    docker.ENGINE_TIMEOUT_S = 3.0
