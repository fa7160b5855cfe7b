"""A cluster's scheduler: `python -m evaluation.batch.scheduler CERTIFICATES`.

CERTIFICATES is a folder; the first start makes a certificate there. Workers and the batch command
are given the same folder, or a copy of it: whoever can read it runs programs on every worker.
"""

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import dask
from distributed import Security

from evaluation.batch import cluster, trust
from volumes import VERSION
from volumes.command import exit_code, say

PORT = 8786


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to stop (SIGTERM, Ctrl-C)."""
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.batch.scheduler",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {VERSION}")
    parser.add_argument("certificates", type=Path, metavar="CERTIFICATES")
    parser.add_argument("--host", default="", help="to listen on (default: every address)")
    parser.add_argument("--port", type=int, default=PORT, help=f"default {PORT}")
    given = parser.parse_args(arguments)

    def do() -> None:
        security = trust.load_or_make(given.certificates)
        asyncio.run(_serve(given.host, given.port, security))

    return exit_code(do)


async def _serve(host: str, port: int, security: Security) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    with dask.config.set(cluster.scheduler_settings()):
        async with cluster.SchedulerWithoutPages(
            host=host, port=port, protocol="tls://", security=security
        ) as scheduler:
            say(f"scheduler  {scheduler.address}")
            await ended.wait()


if __name__ == "__main__":
    sys.exit(main())
