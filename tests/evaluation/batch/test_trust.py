"""The attack: a stranger on this machine, or beyond it, sends a worker a function to run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from argparse import Namespace
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest
from distributed import Security, Worker
from distributed.core import rpc
from distributed.protocol.pickle import dumps

from evaluation.batch import trust
from evaluation.batch.cluster import SchedulerWithoutPages
from evaluation.errors import EvaluationError
from tests.small_batch import PRELOAD, SmallBatch
from tests.submissions import BEHAVIOURS, Behaviour

T = TypeVar("T")
GOOD = BEHAVIOURS["good"]
PATIENCE_S = 5.0
LISTENS = "0A"  # of /proc/net/tcp


def listening(pids: set[int]) -> dict[str, str]:
    """Return PORT: ADDRESS, as the kernel writes them, of the sockets that processes listen on."""
    inodes = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    inodes.add(str(descriptor.readlink()).removeprefix("socket:[").rstrip("]"))
    found = {}
    for family in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{family}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == LISTENS and inode in inodes:
                address, port = local.split(":")
                found[str(int(port, 16))] = address
    return found


def family_of(root: int) -> set[int]:
    """Return a process and all that descend from it."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            parents[int(folder.name)] = int(fields[1])
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def attack(address: str, security: Security, proof: Path) -> bool:
    """Send a function to a port of dask's; return whether it has run."""

    async def send() -> None:
        connection = security.get_connection_args("client")
        async with rpc(address, connection_args=connection, timeout=PATIENCE_S) as stranger:
            function = dumps(os.mkdir)
            await asyncio.wait_for(
                stranger.run(function=function, args=dumps((proof,))), PATIENCE_S
            )

    with contextlib.suppress(Exception):  # however it is turned away
        in_a_loop(send())
    return proof.exists()


def in_a_loop(work: Coroutine[Any, Any, T]) -> T:
    """Do it in a thread: this one may have a browser's loop already."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


@pytest.fixture
def batch(tmp_path: Path) -> Iterator[SmallBatch]:
    one = SmallBatch(tmp_path / "batch", {PRELOAD: "tests.evaluation.batch.processes"})
    yield one
    one.end()


@pytest.mark.slow
def test_nobody_else_runs_a_function_on_a_worker_or_the_scheduler(
    batch: SmallBatch, tmp_path: Path
) -> None:
    batch.add_folder("slow", Behaviour("ok", f"sleep 4; {GOOD.script}", make=GOOD.make))
    batch.write_cases(2)
    process = batch.start("--slots", 1, "--scorers", 1)
    batch.wait_for(lambda: batch.records())
    ports = listening(family_of(process.pid))
    assert len(ports) == 3  # the scheduler's and two workers'; no page of dask's beside them
    assert set(ports.values()) == {"0100007F"}  # 127.0.0.1
    outside = socket.gethostbyname(socket.gethostname())
    for port in ports:
        for security in (Security(), Security.temporary()):
            scheme = "tls" if security.require_encryption else "tcp"
            assert not attack(f"{scheme}://127.0.0.1:{port}", security, tmp_path / "proof")
        if not outside.startswith("127."):
            with pytest.raises(OSError, match="refused"):
                socket.create_connection((outside, int(port)), PATIENCE_S)
    assert batch.code(process) == 0, batch.log()


def test_the_attack_works_on_a_worker_of_which_nobody_asks_who_it_is(tmp_path: Path) -> None:
    async def unprotected() -> bool:
        async with (
            SchedulerWithoutPages(host="127.0.0.1", port=0) as scheduler,
            Worker(scheduler.address, host="127.0.0.1") as one,
        ):
            return await asyncio.to_thread(attack, one.address, Security(), tmp_path / "proof")

    assert in_a_loop(unprotected())


def test_a_folder_of_certificates_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "certificates"
    first, again = trust.load_or_make(folder), trust.load_or_make(folder)
    assert first.require_encryption
    roles = ("client", "scheduler", "worker")
    made = [first.get_tls_config_for_role(role) for role in roles]
    assert made == [again.get_tls_config_for_role(role) for role in roles]
    for path in (folder, *folder.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


@pytest.mark.parametrize(
    ("address", "certificates", "insecure", "said"),
    [
        ("tcp://host:8786", None, False, "without TLS runs programs as this user"),
        ("tls://host:8786", None, False, "give --certificates"),
        ("tcp://host:8786", "made", False, "an address is tls://HOST:PORT"),
        ("tls://host:8786", "empty", False, "no certificate that can be read"),
    ],
)
def test_what_is_not_safe_is_refused(
    address: str, certificates: str | None, insecure: bool, said: str, tmp_path: Path
) -> None:
    trust.load_or_make(tmp_path / "made")
    folder = None if certificates is None else tmp_path / certificates
    with pytest.raises(EvaluationError, match=said):
        trust.chosen(address, Namespace(certificates=folder, insecure=insecure))


def test_an_unprotected_scheduler_is_used_when_asked_for_and_said_aloud(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = trust.chosen("tcp://host:8786", Namespace(certificates=None, insecure=True))
    assert not found.require_encryption
    assert "warning: tcp://host:8786 is not protected" in capsys.readouterr().err
