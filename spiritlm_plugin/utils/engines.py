"""Work over many processes and machines: tasks that leave files.

Two engines do it. ``torchrun`` is a fixed set of processes, or just this one,
that take tasks from a counter that they share. ``ray`` is a cluster whose
machines come and go: what a lost worker had is given to another.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Literal, TypeVar

import torch.distributed as dist
from tqdm import tqdm

from spiritlm_plugin.utils.processes import rank_and_world_size

logger = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)
Engine = Literal["torchrun", "ray"]

# Seconds between looks at what the others do, and until they are given up; as
# long as SpeechBrain's processes wait for each other.
_PAUSE, _PATIENCE = 0.1, 7200.0
# Of the calls of `run`, which all processes make in the same order.
_calls = itertools.count()


def run(
    tasks: Mapping[Key, float],
    make_worker: Callable[[], Callable[[Key], None]],
    name: str = "working",
    unit: str = "s of audio",
    engine: Engine = "torchrun",
    device: str | None = None,
    cpus: int = 1,
) -> None:
    """Do all tasks, the largest first, and return when all are done.

    A task leaves a file on a disk that all machines share, and makes the same
    of it where it is done twice. With ``torchrun`` all processes call this;
    with ``ray`` one does, which joins the cluster of ``RAY_ADDRESS`` or else
    makes one of this machine.

    Arguments
    ---------
    tasks : dict
        The size of each, such as its seconds of audio.
    make_worker : callable
        Called once in each process that gets a task; returns what does one.
        Ray pickles it.
    name, unit : str
        What the progress bar says.
    engine : str
        Either "torchrun" or "ray".
    device : str, optional
        With Ray, workers get a GPU each where this names one, or where it is
        not given and the cluster has some.
    cpus : int
        Of a worker of Ray; at most those of the largest machine.

    Raises
    ------
    RuntimeError
        If another process failed, or workers of Ray died of a task again and
        again; names the task.
    ValueError
        If the engine is unknown, or is Ray's under ``torchrun``.
    ModuleNotFoundError
        If Ray is wanted and not installed.
    Exception
        What a task raises, the task being logged.

    Example
    -------
    >>> sizes = {"a": 1.0, "b": 9.0, "c": 5.0}
    >>> run(sizes, lambda: print, unit="letters")
    b
    c
    a
    """
    rank, processes = rank_and_world_size()
    order = sorted(tasks, key=tasks.__getitem__, reverse=True)
    if engine not in ("torchrun", "ray"):
        raise ValueError(f"engine must be torchrun or ray, got {engine!r}")
    if engine == "ray" and processes > 1:
        raise ValueError(
            f"the engine is ray and torchrun started {processes} processes; "
            "start one, with python, or name --engine torchrun"
        )
    progress = tqdm(
        total=sum(map(round, tasks.values())),
        desc=name,
        unit=unit,
        disable=rank > 0 or not tasks,
    )
    with progress:
        if engine == "torchrun":
            _share(order, tasks, make_worker, progress, name)
        elif tasks:
            for key in _ray()(order, make_worker, name, device, cpus):
                progress.update(round(tasks[key]))


def _share(
    order: Sequence[Key],
    tasks: Mapping[Key, float],
    make_worker: Callable[[], Callable[[Key], None]],
    progress: tqdm,
    name: str,
) -> None:
    """Take one task after another until none is left, and wait for others."""
    store = _store()
    work: Callable[[Key], None] | None = None
    while (taken := store.add("taken", 1)) <= len(order):
        _check(store)
        key = order[taken - 1]
        try:
            work = work or make_worker()
            work(key)
        except BaseException as error:
            logger.error("%s: task %s failed", name, key)
            store.set(
                "failed", f"{name}: task {key}: {type(error).__name__}: {error}"
            )
            raise
        done = store.add("size", round(tasks[key]))
        progress.update(done - progress.n)
        store.add("done", 1)
    end = time.monotonic() + _PATIENCE
    while store.add("done", 0) < len(order):
        _check(store)
        if time.monotonic() > end:
            raise RuntimeError(
                f"{store.add('done', 0)} of {len(order)} tasks were done, and "
                f"no more in {_PATIENCE:.0f} s: another process is gone or far "
                "too slow; start again, which goes on from what is done"
            )
        progress.update(store.add("size", 0) - progress.n)
        time.sleep(_PAUSE)
    progress.update(store.add("size", 0) - progress.n)


def _store() -> dist.Store:
    """Return what all processes count on, anew for each call of `run`."""
    if rank_and_world_size()[1] == 1:
        return dist.HashStore()
    store, _, _ = next(dist.rendezvous("env://"))
    return dist.PrefixStore(f"tasks-{next(_calls)}", store)


def _check(store: dist.Store) -> None:
    if store.check(["failed"]):
        raise RuntimeError(
            f"another process failed: {store.get('failed').decode()}"
        )


def _ray() -> Callable[..., Iterator]:
    try:
        from spiritlm_plugin.utils.ray_actors import do_tasks
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the engine ray needs Ray: pip install 'spiritlm_plugin[ray]'"
        ) from error
    return do_tasks
