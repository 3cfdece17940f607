"""Runs scripts in two processes, as torchrun does, without its start.

``python -m tests.launcher`` imports once what all scripts need. Each line that
it reads is a script to run, for which it forks; for each it writes a line with
the exit statuses.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import runpy
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

PROCESSES = 2
ROOMS = ("training", "evaluation")


def main() -> None:
    """Serve until there is no more to read."""
    for room in ROOMS:
        package = importlib.import_module(f"spiritlm_plugin.{room}")
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{package.__name__}.{module.name}")
    for line in sys.stdin:
        print(json.dumps(_run(json.loads(line))), flush=True)


def _run(job: dict[str, Any]) -> list[int]:
    """Run a script in all processes; where one fails, the others end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    running = {}
    for rank in range(PROCESSES):
        pid = os.fork()
        if not pid:
            _become(job, rank, port)
        running[pid] = rank
    statuses = [0] * PROCESSES
    while running:
        pid, status = os.wait()
        rank = running.pop(pid)
        statuses[rank] = os.waitstatus_to_exitcode(status)
        if statuses[rank] > 0:
            for other in running:
                os.kill(other, signal.SIGKILL)
    return statuses


def _become(job: dict[str, Any], rank: int, port: int) -> None:
    """Run a script as one of the processes, and end."""
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    os.environ.clear()
    os.environ.update(job["environment"])
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(PROCESSES),
        LOCAL_WORLD_SIZE=str(PROCESSES),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    os.chdir(job["folder"])
    sys.argv = [job["script"], *job["arguments"]]
    sys.path[0] = str(Path(job["script"]).parent)
    status = 0
    try:
        runpy.run_path(job["script"], run_name="__main__")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
