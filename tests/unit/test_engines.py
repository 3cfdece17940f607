"""Tests of ``spiritlm_plugin.utils.engines``; Ray's are integration tests."""

import logging
import sys
import threading
from datetime import timedelta

import pytest
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_plugin.utils import engines
from spiritlm_plugin.utils.engines import run

SIZES = {"a": 2.0, "b": 9.4, "c": 5.0, "d": 9.4}


def together(monkeypatch, tasks, *workers):
    """Run in a thread for each worker, as in processes; return what fails."""
    store, failed = dist.HashStore(), {}
    monkeypatch.setattr(engines, "_store", lambda: store)

    def process(number):
        try:
            run(tasks, lambda: workers[number])
        except Exception as error:
            failed[number] = error

    threads = [
        threading.Thread(target=process, args=[i]) for i in range(len(workers))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    return failed


def test_the_largest_come_first_and_equal_ones_in_order():
    done = []
    run(SIZES, lambda: done.append)
    assert done == ["b", "d", "c", "a"]


def test_a_worker_is_made_once_and_only_if_there_is_work():
    made = []

    def make_worker():
        made.append(1)
        return print

    run({}, make_worker)
    assert not made
    run(SIZES, make_worker)
    assert len(made) == 1


@given(
    st.dictionaries(st.integers(), st.floats(0, 1e6), max_size=9),
    st.integers(1, 4),
)
def test_processes_do_each_task_once(tasks, processes):
    done = []
    with pytest.MonkeyPatch.context() as patch:
        failed = together(patch, tasks, *[done.append] * processes)
    assert not failed
    assert sorted(done) == sorted(tasks)


def test_a_slow_process_does_less(monkeypatch):
    mine, others = [], []
    begun, free = threading.Event(), threading.Event()

    def slow(key):
        mine.append(key)
        begun.set()
        assert free.wait(30)

    def fast(key):
        assert begun.wait(30)
        others.append(key)
        if len(mine) + len(others) == len(SIZES):
            free.set()

    assert not together(monkeypatch, SIZES, slow, fast)
    assert len(mine) == 1
    assert len(others) == 3


def test_an_error_names_its_task_and_ends_all(monkeypatch, caplog):
    # Also where SpeechBrain has set up loggers.
    monkeypatch.setattr(logging.getLogger("spiritlm_plugin"), "propagate", True)

    def fail(key):
        raise OSError(f"no {key}")

    failed = together(monkeypatch, {"a": 1.0}, fail, fail)
    kinds = {type(error): str(error) for error in failed.values()}
    assert kinds == {
        OSError: "no a",
        RuntimeError: "another process failed: working: task a: OSError: no a",
    }
    assert "working: task a failed" in caplog.text


def test_nothing_is_begun_after_an_error(monkeypatch):
    begun = []

    def fail(key):
        begun.append(key)
        raise OSError(key)

    def follow(key):
        begun.append(key)
        engines._store().wait(["failed"], timedelta(seconds=30))

    failed = together(
        monkeypatch, SIZES | dict.fromkeys("xyz", 0), fail, follow
    )
    assert len(failed) == 2
    assert len(begun) <= 3


def test_who_never_returns_is_given_up(monkeypatch):
    monkeypatch.setattr(engines, "_PATIENCE", 0.2)
    store = dist.HashStore()
    store.add("taken", 1)  # by a process that is gone
    monkeypatch.setattr(engines, "_store", lambda: store)
    with pytest.raises(RuntimeError, match="3 of 4 tasks were done, and"):
        run(SIZES, lambda: print)


def test_the_bar_counts_what_all_do(capsys):
    run(SIZES, lambda: str, "tokenizing train")
    bar = capsys.readouterr().err.split("\r")[-1]
    assert bar.startswith("tokenizing train: 100%")
    assert "25/25" in bar


def test_engines_are_checked(monkeypatch):
    with pytest.raises(ValueError, match="torchrun or ray, got 'slurm'"):
        run(SIZES, lambda: print, engine="slurm")
    monkeypatch.setattr(engines, "rank_and_world_size", lambda: (0, 2))
    with pytest.raises(ValueError, match="torchrun started 2 processes"):
        run(SIZES, lambda: print, engine="ray")


def test_ray_is_asked_for_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(
        sys.modules, "spiritlm_plugin.utils.ray_actors", raising=False
    )
    with pytest.raises(ModuleNotFoundError, match=r"pip install .*\[ray\]"):
        run(SIZES, lambda: print, engine="ray")
