"""What an export is made of, and what it makes: sizes, depths and files without bounds."""

from __future__ import annotations

import dataclasses
import json
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from app.model import FORMAT_VERSION, MANIFEST
from tests.app.small_model import CONFIG
from tests.hostile.entry import (
    Entry,
    as_archive,
    as_checkpoint,
    as_model,
    as_postprocessing,
    as_trained,
    written,
)
from tests.hostile.scans import NO_FILES
from tests.nnunet_models import dataset, plans
from tests.training.test_plans import ARCH, BASE
from tests.training.trained_folder import put
from training.random_weights import FINAL

Make = Callable[[Path], Path]
Parts = dict[str, bytes | int]
HUGE: tuple[Any, ...] = (10**9, 10**30, 10**4000, -1, 0, 1e308, None, "9" * 5000, [], {}, [[]] * 9)
MANIFESTED = {"format_version": FORMAT_VERSION, **dataclasses.asdict(CONFIG)}
PLANNED = {"plans.json": plans(), "dataset.json": dataset()}


def models() -> Iterator[Entry]:
    """All of them."""
    yield from _manifests()
    yield from _plans()
    yield from _checkpoints()
    yield from _postprocessing()
    yield from _archives()


def _manifests() -> Iterator[Entry]:
    lists = {"network/features": 2, "network/encoder_blocks": 2, "patch_size": 3, "spacing": 3}
    for path, length in lists.items():
        for value in HUGE:
            content = put(MANIFESTED, path, [value, *([1] * (length - 1))])
            make, says = _folder_with({MANIFEST: content}), path.replace("/", ".")
            yield Entry("model.json", _named(path, value), make, as_model, says)
    for name, make in _damaged(MANIFEST, {}):
        yield Entry("model.json", name, make, as_model, "model.json")


def _plans() -> Iterator[Entry]:
    for path in (f"{ARCH}/n_stages", f"{ARCH}/features_per_stage", f"{BASE}/patch_size"):
        for value in HUGE:
            make = _folder_with(PLANNED | {"plans.json": put(plans(), path, value)})
            name = _named(path.rpartition("/")[2], value)
            yield Entry("plans and dataset", name, make, as_trained, "plans.json: ")
    circle = put(plans(), "configurations/3d_fullres/inherits_from", "3d_fullres")
    make = _folder_with(PLANNED | {"plans.json": circle})
    yield Entry("plans and dataset", "inherits itself", make, as_trained, "in a circle")
    for labels in ({"background": [0] * 400}, {"background": 0, "a": 10**9}, {"a" * 9999: 1}, 3):
        make = _folder_with(PLANNED | {"dataset.json": dataset() | {"labels": labels}})
        name = _named("labels", labels)
        yield Entry("plans and dataset", name, make, as_trained, "dataset.json: ")
    for file, other in (("plans.json", "dataset.json"), ("dataset.json", "plans.json")):
        for name, make in _damaged(file, {other: PLANNED[other]}):
            yield Entry("plans and dataset", f"{file}: {name}", make, as_trained, file)


def _checkpoints() -> Iterator[Entry]:
    called = pickle.dumps(print)
    files = {name: make(FINAL) for name, make in NO_FILES.items()} | {
        "a call": written(FINAL, called),
        "a name": written(FINAL, b"cos\nsystem\n."),
        "a string of 2^64 bytes": written(FINAL, b"\x80\x04\x8d" + b"\xff" * 8),
        "a frame of 2^62 bytes": written(FINAL, b"\x80\x04\x95" + (2**62).to_bytes(8, "little")),
        "tuples of tuples": written(FINAL, b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b"."),
        "the start of a zip": written(FINAL, b"PK\x03\x04" + bytes(99)),
        "a zip of nothing": _zip({}),
        "a call in a zip": _zip({"archive/data.pkl": called}),
        "a packed pickle of 99 MB": _zip({"archive/data.pkl": 99}),
        "packed weights of 99 MB": _zip({"archive/data.pkl": called, "archive/data/0": 99}),
    }
    for name, make in files.items():
        yield Entry("checkpoints", name, make, as_checkpoint, FINAL)


def _postprocessing() -> Iterator[Entry]:
    file = "postprocessing.pkl"
    files = {name: make(file) for name, make in NO_FILES.items()} | {
        "a call": written(file, pickle.dumps(print)),
        "room for 2^32 things": written(file, b"\x80\x02Nr" + b"\xff" * 4 + b"."),
        "a string of 2^64 bytes": written(file, b"\x80\x04\x8d" + b"\xff" * 8),
        "a string of 2^33 bytes": written(file, b"\x80\x05\x96" + (2**33).to_bytes(8, "little")),
        "a number of a million digits": written(file, b"I" + b"9" * 10**6 + b"\n."),
        "tuples of tuples": written(file, b"\x80\x02" + b"(" * 10_000 + b"t" * 10_000 + b"."),
        "lists that double": written(file, b"\x80\x02]" + b"(2e" * 1000 + b"."),
    }
    for name, make in files.items():
        yield Entry("postprocessing", name, make, as_postprocessing, file)
    for name, make in _damaged("postprocessing.json", {}):
        both = _file_of(make, "postprocessing.json")
        yield Entry("postprocessing", f"as JSON, {name}", both, as_postprocessing, "post")


def _archives() -> Iterator[Entry]:
    plan, model = json.dumps(plans()).encode(), "Dataset/nnUNetTrainer__nnUNetPlans__3d_fullres"
    bomb: Parts = {f"{model}/plans.json": plan, f"{model}/fold_0/a.pth": 99}
    zips: list[tuple[str, Parts, str | None]] = [
        ("nothing in it", {}, "there is none"),
        ("no plans", {f"{model}/dataset.json": b"{}"}, "there is none"),
        ("packed weights of 99 MB", bomb, "would unpack to"),
        ("names that climb", {"../../plans.json": plan}, "which trained folder"),
        ("an absolute name", {"/tmp/x/plans.json": plan}, None),
        ("two folders", {f"{n}/plans.json": plan for n in "ab"}, "which trained folder"),
    ]
    for name, parts, says in zips:
        yield Entry("archives", name, _zip(parts, "model.zip"), as_archive, says)
    for name, content in {"no zip": b"PK\x03\x04" + bytes(99), "nothing": b""}.items():
        yield Entry("archives", name, written("model.zip", content), as_archive, "model.zip")


def _file_of(make: Make, file: str) -> Make:
    return lambda folder: make(folder) / file


def _named(path: str, value: object) -> str:
    text = json.dumps(value)
    return f"{path} with {text[:20]} ({len(text)})"


def _damaged(file: str, others: dict[str, Any]) -> Iterator[tuple[str, Make]]:
    """Ways in which a file of JSON, beside others, is none."""
    contents = {
        "nested": b"[" * 100_000,
        "nested and closed": b"[" * 900 + b"]" * 900,
        "nested objects": b'{"a":' * 100_000,
        "larger than any": b"[" + b"[]," * (2**23 // 3) + b"[]]",
        "a number of 5000 digits": b"9" * 5000,
        "no UTF-8": b'{"a": "\xff"}',
        "null": b"null",
        "zeros": bytes(4096),
    }
    makes = {name: written(file, content) for name, content in contents.items()}
    for name, make in (makes | {name: make(file) for name, make in NO_FILES.items()}).items():

        def both(folder: Path, make: Make = make) -> Path:
            make(folder)
            return _folder_with(others)(folder)

        yield name, both


def _folder_with(files: dict[str, Any]) -> Make:
    """What writes some files of JSON."""

    def make(folder: Path) -> Path:
        for name, content in files.items():
            (folder / name).write_text(json.dumps(content))
        return folder

    return make


def _zip(parts: Parts, file: str = FINAL) -> Make:
    """What makes a zip of these parts, or of so many megabytes of zeros, packed."""

    def make(folder: Path) -> Path:
        with zipfile.ZipFile(folder / file, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, content in parts.items():
                with packed.open(name, "w") as part:
                    if isinstance(content, bytes):
                        part.write(content)
                    else:
                        for _ in range(content):
                            part.write(bytes(10**6))
        return folder / file

    return make
