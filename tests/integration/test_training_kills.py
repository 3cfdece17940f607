"""Trainings that are killed, or find no room, end as those that are not."""

from __future__ import annotations

import signal
from dataclasses import replace
from random import Random
from time import sleep

import pytest

from tests.integration.small_training import Run, Training, run

KILLS = 10
# A run dies in one of its first steps, so that it does not come to the end.
FIRST_STEPS = 3


def kill_at(training, step, seconds=0.0):
    """Train, and kill all processes so long after a step begins."""
    running = Run(training)
    for count, _ in enumerate(running.steps(), 1):
        if count == step:
            break
    sleep(seconds)
    running.kill()
    assert running.processes[0].exitcode == -signal.SIGKILL


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Trainings that nothing happens to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    made = {}

    def get(kind):
        if kind not in made:
            made[kind] = run(Training(folder / kind, kind, save=True))
        return made[kind]

    return get


def assert_same_end(training, expected):
    assert training.weights() == expected.weights()
    assert training.log() == expected.log()
    losses = training.losses()
    assert losses and losses.items() <= expected.losses().items()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["single", "ddp", "fsdp"])
def test_a_training_that_is_killed_ten_times(tmp_path, undisturbed, kind):
    random = Random(0)
    training = replace(undisturbed(kind), folder=tmp_path)
    for _ in range(KILLS):
        kill_at(
            training, random.randint(1, FIRST_STEPS), random.uniform(0, 0.03)
        )
    run(training)
    assert len(training.losses()) < training.epochs * training.steps
    assert_same_end(training, undisturbed(kind))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["single", "ddp", "fsdp"])
def test_a_training_whose_disk_is_full(tmp_path, undisturbed, kind):
    training = replace(undisturbed(kind), folder=tmp_path)
    kill_at(training, FIRST_STEPS)
    before = list((tmp_path / "save").glob("CKPT*"))
    assert before
    running = Run(replace(training, room=50_000))
    [*_, said] = running.steps()
    assert said.startswith("DiskFullError: no room for ")
    assert str(tmp_path / "save" / "checkpoint") in said
    running.kill()
    assert set(before) <= set((tmp_path / "save").iterdir())
    run(training)
    assert_same_end(training, undisturbed(kind))
