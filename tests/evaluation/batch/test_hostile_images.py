"""Teams whose images are made to look like a broken machine, before one that is good."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import engine
from tests.small_batch import SmallBatch, tables
from tests.submissions import BEHAVIOURS

pytestmark = pytest.mark.engine

GOOD = "zzz-flare-test-good"  # comes last
GIB = 2**30
Part = tuple[str, bytes, dict[str, Any]]  # of a tar
# What an image's configuration cannot be, each a team of its own.
CONFIGURED: dict[str, dict[str, Any]] = {
    "a-user": {"User": "nobody-here"},
    "a-group": {"User": "0:nobodies-here"},
    "a-workdir-that-is-a-file": {"WorkingDir": "/etc/passwd"},
    "a-relative-workdir": {"WorkingDir": "workspace"},
    "a-volume": {"Volumes": {"/proc": {}}},
    "a-volume-over-a-file": {"Volumes": {"/etc/passwd": {}}},
    "a-variable": {"Env": ["=x"]},
}
LINKED = ("links-1", "links-2")
LARGE = ("large-1", "large-2")
LOOP = [
    ("workspace/inputs", {"type": tarfile.SYMTYPE, "linkname": "loop"}),
    ("workspace/loop", {"type": tarfile.SYMTYPE, "linkname": "inputs"}),
]


def tar(*files: Part) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as out:
        for name, content, facts in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in facts.items():
                setattr(info, key, value)
            out.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


class Hostile(SmallBatch):
    """A batch whose hostile teams' archives are the good one's, changed."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.write_cases(2)
        self.add_image(GOOD, BEHAVIOURS["good"])

    def add(self, team: str, layer: bytes = b"", **config: Any) -> None:
        """Add the good team's image under another name, with one layer more, configured so."""
        with tarfile.open(self.submissions / f"{GOOD}.tar.gz") as source:
            (image,) = json.load(source.extractfile("manifest.json") or io.BytesIO())
            described = json.load(source.extractfile(image["Config"]) or io.BytesIO())
            described["config"] |= config
            parts = [
                (one.name, (source.extractfile(one) or io.BytesIO()).read(), {"type": one.type})
                for one in source
                if one.isfile() and one.name not in ("manifest.json", image["Config"])
            ]
        if layer:
            unpacked = gzip.decompress(layer) if layer.startswith(b"\x1f\x8b") else layer
            described["rootfs"]["diff_ids"].append(f"sha256:{hashlib.sha256(unpacked).hexdigest()}")
            described["history"].append({"created_by": "a layer more"})
            parts.append(("more/layer.tar", layer, {}))
            image["Layers"].append("more/layer.tar")
        text = json.dumps(described).encode()
        image |= {
            "Config": f"{hashlib.sha256(text).hexdigest()}.json",
            "RepoTags": [f"{team}:latest"],
        }
        parts = [part for part in parts if part[0] != "repositories"]
        parts += [(image["Config"], text, {}), ("manifest.json", json.dumps([image]).encode(), {})]
        content = gzip.compress(tar(*parts), 1)
        (self.submissions / f"{team}.tar.gz").write_bytes(content)

    def judge(self) -> dict[str, list[dict[str, str]]]:
        """Run it with one slot; the good team must have all of its results."""
        done = self.start("--slots", 1, "--scorers", 1, "--image-limit", 1)
        assert self.code(done) == 1, self.log()
        found = tables(self.output)
        assert GOOD in found, self.log()
        assert [row["status"] for row in found[GOOD]] == ["ok", "ok"], self.log()
        assert "gets nothing more" not in self.log()
        return found


@pytest.fixture
def batch(tmp_path: Path) -> Iterator[Hostile]:
    one = Hostile(tmp_path / "batch")
    yield one
    one.end()
    for team in (GOOD, *CONFIGURED, *LINKED, *LARGE):
        engine.docker("rmi", "--force", f"{team}:latest", check=False)


def test_hostile_teams_cost_the_good_one_nothing(batch: Hostile) -> None:
    for team, config in CONFIGURED.items():
        batch.add(team, **config)
    for team in LINKED:
        batch.add(team, tar(*((name, b"", facts) for name, facts in LOOP)))
    found = batch.judge()
    said = batch.log()
    for team in CONFIGURED:
        assert f"refused  {team}: " in said
        assert f"{team}.tar.gz: no container of it can be started: " in said
    for team in LINKED:  # which shows only where there are inputs
        assert [row["status"] for row in found[team]] == ["nonzero_exit"] * 2
        assert all("exit code 125: the container can" in row["message"] for row in found[team])


def test_layers_of_gigabytes_are_refused_before_the_engine_has_them(batch: Hostile) -> None:
    header = tarfile.TarInfo("zeros")
    header.size = 3 * GIB
    packed = io.BytesIO()
    with gzip.open(packed, "wb", 1) as layer:
        layer.write(header.tobuf())
        for _ in range(3 * 1024):
            layer.write(bytes(2**20))
        layer.write(bytes(1024))
    for team in LARGE:
        parts: list[Part] = [("more/layer.tar", packed.getvalue(), {})]
        image = {"Config": "c.json", "RepoTags": [f"{team}:latest"], "Layers": ["more/layer.tar"]}
        parts += [("c.json", b"{}", {}), ("manifest.json", json.dumps([image]).encode(), {})]
        (batch.submissions / f"{team}.tar.gz").write_bytes(gzip.compress(tar(*parts), 1))
    batch.judge()
    for team in LARGE:
        assert (
            f"{team}.tar.gz: unpacks to more than 1024 MiB, the most that is allowed" in batch.log()
        )
