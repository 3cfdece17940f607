"""The engine that is Ray; see `engines.run`."""

from __future__ import annotations

import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

logger = logging.getLogger(__name__)

MakeWorker = Callable[[], Callable[[Any], None]]

# Seconds after which the cluster is looked at again.
_PAUSE = 1.0
# Of workers, after which a task is given up.
_DEATHS = 5


def do_tasks(
    order: Sequence[Any],
    make_worker: MakeWorker,
    name: str,
    device: str | None,
    cpus: int,
) -> Iterator[Any]:
    """Join a cluster, or make one of this machine, and do all tasks.

    Arguments and errors are those of `engines.run`.

    Yields
    ------
    hashable
        Each task, when it is done.
    """
    joined = not ray.is_initialized()
    if joined:
        ray.init(os.environ.get("RAY_ADDRESS", "local"))
    try:
        with _Actors(make_worker, name, device, cpus) as actors:
            yield from actors.do(order)
    finally:
        if joined:
            ray.shutdown()


class _Worker:
    """What runs in a process of Ray's."""

    def __init__(self, make_worker: MakeWorker, folder: str):
        self.make_worker = make_worker
        self.folder = folder

    def start(self) -> None:
        os.chdir(self.folder)  # what relative paths start from
        self.work = self.make_worker()

    def do(self, key: Any) -> None:
        self.work(key)


class _Actors:
    """Workers, as many as the cluster has room for at the time."""

    def __init__(
        self, make_worker: MakeWorker, name: str, device: str | None, cpus: int
    ):
        self.name = name
        most = max(n["Resources"].get("CPU", 0) for n in ray.nodes())
        self.needs = {"CPU": max(1.0, min(float(cpus), most))}
        has_gpus = ray.cluster_resources().get("GPU", 0) > 0
        if not (device or ("cuda" if has_gpus else "cpu")).startswith("cpu"):
            self.needs["GPU"] = 1.0
        self.make_worker = ray.put(make_worker)
        # Each worker and its task, None while it starts, by what Ray promises.
        self.busy: dict[Any, tuple[Any, Any]] = {}

    def __enter__(self) -> _Actors:
        return self

    def __exit__(self, *_: object) -> None:
        for worker, _ in self.busy.values():
            ray.kill(worker)

    def do(self, order: Sequence[Any]) -> Iterator[Any]:
        """Do all tasks, and yield each that is done."""
        waiting, deaths, left = deque(order), Counter[Any](), len(order)
        while left:
            self._fill(left)
            ready, _ = ray.wait([*self.busy], timeout=_PAUSE)
            for promise in ready:
                worker, key = self.busy.pop(promise)
                if not self._is_kept(promise, key):
                    ray.kill(worker)
                    waiting.extendleft([] if key is None else [key])
                    deaths[key] += 1
                    self._check_deaths(deaths[key], key)
                    continue
                del deaths[key]
                self._give(worker, waiting)
                if key is not None:
                    left -= 1
                    yield key

    def _fill(self, most: int) -> None:
        """Start as many workers as there is room for, and at least one."""
        found = ray.cluster_resources()
        room = min(found.get(k, 0) // need for k, need in self.needs.items())
        for _ in range(len(self.busy), max(1, min(int(room), most))):
            worker: Any = ray.remote(
                num_cpus=self.needs["CPU"], num_gpus=self.needs.get("GPU", 0)
            )(_Worker).remote(self.make_worker, os.getcwd())
            self.busy[worker.start.remote()] = worker, None

    def _give(self, worker: Any, waiting: deque[Any]) -> None:
        """Give a worker its next task, or let it go."""
        if waiting:
            key = waiting.popleft()
            self.busy[worker.do.remote(key)] = worker, key
        else:
            ray.kill(worker)

    def _is_kept(self, promise: Any, key: Any) -> bool:
        """Tell whether a worker did what it was given, or is lost."""
        try:
            ray.get(promise)
        except RayTaskError as error:
            logger.error("%s: %s failed", self.name, _named(key))
            raise error.cause from None
        except RayError as error:
            why, _, _ = str(error).partition("\n")
            logger.warning(
                "%s: a worker is lost with %s: %s", self.name, _named(key), why
            )
            return False
        return True

    def _check_deaths(self, deaths: int, key: Any) -> None:
        if deaths == _DEATHS:
            raise RuntimeError(
                f"{self.name}: {deaths} workers died of {_named(key)}, perhaps "
                "for want of memory; the logs of Ray say how"
            )


def _named(key: Any) -> str:
    return "its start" if key is None else f"task {key}"
