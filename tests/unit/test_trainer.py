"""Tests of ``spiritlm_plugin.training.trainer``.

As a script, this file trains the same small model:
``python test_trainer.py hparams.yaml --output_folder FOLDER``.
"""

import io
import os
import re
import signal
import subprocess
import sys
from importlib.metadata import version
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import speechbrain as sb
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)

from spiritlm_plugin.training.checkpointer import AtomicCheckpointer
from spiritlm_plugin.training.trainer import (
    LoaderSettings,
    RunningMeans,
    TrainingBrain,
    train,
    unwrap,
)
from spiritlm_plugin.utils import recipes
from spiritlm_plugin.utils.seeds import derive_seed, item_generator

HPARAMS = """
seed: 5
output_folder: !PLACEHOLDER
save_folder: !ref <output_folder>/save
number_of_epochs: 2
stop_at: 0  # the call of compute_forward that stops the run
kill: false
ckpt_interval_steps: 0
grad_accumulation_factor: 1

model: !new:torch.nn.Sequential
    - !new:torch.nn.Linear [4, 8]
    - !new:torch.nn.Dropout [0.5]
    - !new:torch.nn.Linear [8, 1]
modules:
    model: !ref <model>
opt_class: !name:torch.optim.Adam
    lr: 0.01
scheduler: !new:speechbrain.nnet.schedulers.NoamScheduler
    lr_initial: 0.01
    n_warmup_steps: 3
best:
    min: loss
train_loader:
    batch_size: 4
valid_loader:
    batch_size: 4
epoch_counter: !new:speechbrain.utils.epoch_loop.EpochCounter
    limit: !ref <number_of_epochs>
train_logger: !new:speechbrain.utils.train_logger.FileTrainLogger
    save_file: !ref <output_folder>/train_log.txt
    precision: 17
checkpointer: !new:spiritlm_plugin.training.checkpointer.AtomicCheckpointer
    checkpoints_dir: !ref <save_folder>
    recoverables:
        model: !ref <model>
        scheduler: !ref <scheduler>
        epoch_counter: !ref <epoch_counter>
"""


class ToySettings(LoaderSettings):
    stop_at: int
    kill: bool
    modules: dict[str, Any]
    opt_class: Any


class Stopped(Exception):
    """Stands for whatever ends a run."""


class ToyBrain(TrainingBrain):
    """Regression of a target from noisy features."""

    calls = 0

    def compute_forward(self, batch, stage):
        self.calls += 1
        if self.calls == self.hparams.stop_at:
            if self.hparams.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise Stopped
        features, _ = batch.features
        features = features + 0.1 * torch.randn_like(features)
        return self.modules.model(features).squeeze(-1)

    def compute_objectives(self, predictions, batch, stage):
        targets = batch.target.to(predictions)
        error = (predictions - targets).abs().detach()
        self.record(error=error.mean(), weight=len(error))
        return ((predictions - targets) ** 2).mean()


def make_data(size):
    """Return utterances of 0.5 to 3 s, each with features of its own."""
    items = {}
    for index in range(size):
        generator = item_generator("length", index)
        seconds = 0.5 + 2.5 * float(torch.rand(1, generator=generator))
        items[f"u{index}"] = {"duration": seconds}
    dataset = DynamicItemDataset(items)
    dataset.add_dynamic_item(
        lambda name: torch.randn(4, generator=item_generator(name)),
        takes="id",
        provides="features",
    )
    dataset.add_dynamic_item(
        lambda features: float(features.sum()),
        takes="features",
        provides="target",
    )
    dataset.set_output_keys(["id", "features", "target"])
    return dataset


def make_brain(hparams, run_opts=None):
    return ToyBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts={"noprogressbar": True} if run_opts is None else run_opts,
        checkpointer=hparams["checkpointer"],
    )


def fit(hparams, run_opts=None):
    brain = make_brain(hparams, run_opts)
    train(brain, hparams, make_data(12), make_data(4))
    return brain


def load(folder, train_loader=None, seed=5, **overrides):
    torch.manual_seed(seed)
    overrides |= {"output_folder": str(folder), "seed": seed}
    hparams = load_hyperpyyaml(io.StringIO(HPARAMS), overrides)
    return hparams | ({"train_loader": train_loader} if train_loader else {})


def run(folder, **overrides):
    """Train; return the final weights and the log."""
    brain = fit(load(folder, **overrides))
    return brain.modules["model"].state_dict(), (
        folder / "train_log.txt"
    ).read_text()


def check_weights(result, expected):
    for name, weights in expected[0].items():
        assert torch.equal(result[0][name], weights), name


def check_equal(result, expected):
    assert result[1] == expected[1]
    check_weights(result, expected)


@pytest.fixture(autouse=True)
def _seed_of_samplers(monkeypatch):
    """Shuffle as `load_recipe` makes SpeechBrain do it."""
    monkeypatch.setenv("SB_GLOBAL_SEED", "5")


SETTINGS = {
    "a checkpoint each step": {"ckpt_interval_steps": 1},
    "batches by duration": {
        "train_loader": {"batch_seconds": 6},
        "ckpt_interval_steps": 2,
    },
    "accumulated gradients": {
        "ckpt_interval_steps": 1,
        "grad_accumulation_factor": 2,
    },
    "no checkpoint in an epoch": {},
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_run_that_was_stopped_goes_on_exactly(tmp_path, setting):
    overrides = SETTINGS[setting]
    expected = run(tmp_path / "whole", **overrides)
    assert len(expected[1].splitlines()) == 2
    stops = 0
    for stop_at in count(1):
        folder = tmp_path / str(stop_at)
        try:
            run(folder, stop_at=stop_at, **overrides)
        except Stopped:
            stops += 1
        else:
            break
        check_equal(run(folder, **overrides), expected)
    assert stops >= 8


def test_a_run_with_workers_goes_on_exactly(tmp_path):
    overrides = {
        "train_loader": {"batch_seconds": 6, "num_workers": 1},
        "ckpt_interval_steps": 2,
    }
    expected = run(tmp_path / "whole", train_loader={"batch_seconds": 6})
    with pytest.raises(Stopped):
        run(tmp_path / "stopped", stop_at=4, **overrides)
    check_equal(run(tmp_path / "stopped", **overrides), expected)


def test_a_run_that_is_finished_stays_as_it_is(tmp_path):
    expected = run(tmp_path)
    check_equal(run(tmp_path), expected)
    longer = run(tmp_path, number_of_epochs=3)
    assert longer[1].startswith(expected[1])
    check_equal(longer, run(tmp_path / "at once", number_of_epochs=3))


def test_the_learning_rate_follows_its_schedule(tmp_path):
    _, log = run(tmp_path)
    rates = [float(rate) for rate in re.findall(r"lr: ([^ ]+) -", log)]
    # The peak after the 3 steps of the warmup, then as 1 / sqrt(steps).
    assert rates == pytest.approx([0.01, 0.01 * (3 / 6) ** 0.5])


def test_a_compiled_model_can_go_on_uncompiled(tmp_path, monkeypatch):
    expected = run(tmp_path / "whole")
    compiled = []
    compile_function = torch.compile

    def spy(function, **options):
        compiled.append(options)
        return compile_function(function, backend="eager", **options)

    monkeypatch.setattr(torch, "compile", spy)
    options = {"noprogressbar": True, "compile": True}
    fit(load(tmp_path / "part", number_of_epochs=1), options)
    [options] = compiled
    assert not options["dynamic"]  # all batches have one shape
    check_equal(run(tmp_path / "part"), expected)


def test_runs_of_other_seeds_differ(tmp_path):
    logs = {run(tmp_path / str(seed), seed=seed)[1] for seed in (5, 6)}
    assert len(logs) == 2


@register_checkpoint_hooks
class Bomb:
    """Ends the run while the checkpoint that is so many are before is saved."""

    def __init__(self, saves):
        self.saves = saves

    @mark_as_saver
    def _save(self, path):
        self.saves -= 1
        if self.saves < 0:
            raise Stopped
        path.touch()

    @mark_as_loader
    def _load(self, path, end_of_epoch):
        pass


@pytest.mark.parametrize("saves", range(4))
def test_a_run_that_is_stopped_while_it_saves_goes_on(tmp_path, saves):
    expected = run(tmp_path / "whole", ckpt_interval_steps=2)
    hparams = load(tmp_path, ckpt_interval_steps=2)
    checkpointer = hparams["checkpointer"]
    checkpointer.add_recoverable("bomb", Bomb(saves))
    with pytest.raises(Stopped):
        fit(hparams)
    partial = list((tmp_path / "save").glob("PARTIAL*"))
    assert len(partial) == 1
    assert all(c.path not in partial for c in checkpointer.list_checkpoints())
    result = run(tmp_path, ckpt_interval_steps=2)
    check_weights(result, expected)
    # The line of an epoch is written before the checkpoint.
    assert set(result[1].splitlines()) == set(expected[1].splitlines())
    assert not list((tmp_path / "save").glob("PARTIAL*"))


def test_the_best_and_the_last_checkpoint_are_kept(tmp_path):
    hparams = load(tmp_path, number_of_epochs=4) | {"best": {"max": "score"}}
    scores = {1: 0.125, 2: 0.75, 3: torch.tensor(0.5), 4: 0.25}
    brain = make_brain(hparams)
    brain.on_valid_end = lambda stats, epoch: stats.update(score=scores[epoch])
    train(brain, hparams, make_data(12), make_data(4))
    find = AtomicCheckpointer(tmp_path / "save").find_checkpoints
    assert [c.meta["epoch"] for c in find()] == [4, 2]
    assert [c.meta["epoch"] for c in find(max_key="score")] == [2, 4]
    assert "valid score: 7.5" in (tmp_path / "train_log.txt").read_text()


def test_saving_does_not_slow_down(tmp_path, monkeypatch):
    checkpointer = AtomicCheckpointer(tmp_path)
    listed = []
    find = checkpointer.find_checkpoints
    monkeypatch.setattr(
        checkpointer,
        "find_checkpoints",
        lambda **kwargs: listed.append(0) or find(**kwargs),
    )
    for _ in range(3):
        checkpointer.save_and_keep_only()
    checkpointer.wait()
    assert len(listed) == 3


@pytest.mark.parametrize(
    "best", [None, "loss", {}, {"minimum": "loss"}, {"min": "a", "max": "b"}]
)
def test_a_best_that_says_nothing_is_refused(tmp_path, best):
    hparams = load(tmp_path) | {"best": best}
    with pytest.raises(ValueError, match=r"best should be .*\{min: loss\}"):
        make_brain(hparams)


def test_a_best_that_is_no_figure_is_named(tmp_path):
    hparams = load(tmp_path) | {"best": {"min": "eror"}}
    with pytest.raises(ValueError, match="best names 'eror'.*: loss, error"):
        fit(hparams)


def test_figures_are_means_over_all_items(tmp_path):
    hparams = load(tmp_path)
    brain = make_brain(hparams)
    seen = []
    brain.on_valid_end = lambda stats, epoch: seen.append(stats["error"])
    errors = []
    brain.compute_objectives = lambda predictions, batch, stage: (
        record(batch, stage) or predictions.mean()
    )

    def record(batch, stage):
        values = torch.arange(len(batch.id), dtype=torch.float)
        brain.record(error=values.mean(), weight=len(values))
        if stage == sb.Stage.VALID:
            errors.extend(values.tolist())

    train(brain, hparams, make_data(12), make_data(4))
    assert seen == pytest.approx([sum(errors[:4]) / 4] * 2)


def test_means_are_saved(tmp_path):
    means = RunningMeans()
    means.add({"a": 1.0, "b": torch.tensor(2.0)})
    means.add({"a": 4.0}, weight=3)
    AtomicCheckpointer(tmp_path, {"means": means}).save_checkpoint()
    other = RunningMeans()
    AtomicCheckpointer(tmp_path, {"means": other}).recover_if_possible()
    assert other.read() == means.read() == {"a": 3.25, "b": 2.0}
    other.clear()
    assert other.read() == {}


def test_draws_depend_on_all_names():
    names = [(), (1,), (1, 2), (2, 1), (12,), ("1", 2), ("12",)]
    assert len({derive_seed(*n) for n in names}) == len(names)
    draws = [torch.rand(3, generator=item_generator(*n)) for n in names]
    assert len({tuple(d.tolist()) for d in draws}) == len(names)
    # A run must go on exactly in another process and another year.
    assert derive_seed(5, 1, "utterance") == 2010799225


def test_too_few_batches_for_the_processes_are_refused(tmp_path, monkeypatch):
    hparams = load(tmp_path, train_loader={"batch_seconds": 100})
    hparams["valid_loader"] = {"batch_seconds": 100}
    fit(hparams)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 4)
    brain = SimpleNamespace(fit=lambda *args, **kwargs: None)
    message = r"batches of 100 s are too few for 4 processes; lower batch_s"
    with pytest.raises(ValueError, match=message):
        train(brain, hparams, make_data(12), make_data(4))
    hparams["train_loader"] = {"batch_seconds": 3}
    train(brain, hparams, make_data(12), make_data(4))


def script_arguments(folder):
    """Return what this file needs as a recipe's script."""
    folder.mkdir(exist_ok=True)
    yaml = folder / "hparams.yaml"
    yaml.write_text(HPARAMS)
    return [yaml, "--output_folder", folder / "out", "--ckpt_interval_steps=2"]


def read_run(folder):
    weights = torch.load(folder / "out" / "weights.pt")
    return weights, (folder / "out" / "train_log.txt").read_text()


def test_a_killed_process_is_replaced_exactly(tmp_path):
    command = [sys.executable, __file__, *script_arguments(tmp_path)]
    command += ["--device=cpu"]
    killed = subprocess.run([*command, "--stop_at=7", "--kill=true"])
    assert killed.returncode == -signal.SIGKILL
    assert len((tmp_path / "out/train_log.txt").read_text().splitlines()) == 1
    subprocess.run(command, check=True)
    expected = run(tmp_path / "whole", ckpt_interval_steps=2)
    check_equal(read_run(tmp_path), expected)
    assert "seed: 5" in (tmp_path / "out/hyperparams.yaml").read_text()
    assert (tmp_path / "out/test_trainer.py").exists()


@pytest.mark.slow
def test_a_run_of_two_processes_goes_on_exactly(tmp_path, two_processes):
    two_processes(__file__, *script_arguments(tmp_path / "whole"))
    arguments = script_arguments(tmp_path / "killed")
    stop = ["--stop_at=6", "--kill=true"]
    assert any(two_processes(__file__, *arguments, *stop, check=False))
    assert not (tmp_path / "killed/out/weights.pt").exists()
    two_processes(__file__, *arguments)
    expected = read_run(tmp_path / "whole")
    check_equal(read_run(tmp_path / "killed"), expected)
    # Two processes share an epoch: half the steps of one.
    assert "epoch: 2, steps: 4," in expected[1]


@pytest.mark.parametrize(
    "text, options, message",
    [
        (HPARAMS, [], "output_folder has no value"),
        (
            HPARAMS,
            ["--output_folder=x", "--typo=3"],
            "--typo overrides nothing",
        ),
        (
            HPARAMS.replace("seed: 5", ""),
            ["--output_folder=x"],
            "seed is missing",
        ),
        (HPARAMS, ["--output_folder=x", "--seed=many"], "seed should be int"),
    ],
)
def test_wrong_hyperparameters_are_named(
    tmp_path, monkeypatch, text, options, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hparams.yaml").write_text(text)
    with pytest.raises((ValueError, KeyError), match=message):
        recipes.load_recipe(["hparams.yaml", *options], ToySettings)
    assert not (tmp_path / "x").exists()


def test_what_a_run_depends_on_is_written_beside_it(tmp_path, monkeypatch):
    """Of the Python that runs, whatever `pip` the path has."""
    pip = tmp_path / "pip"
    pip.write_text("#!/bin/sh\necho other==1.0\n")
    pip.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / "hparams.yaml").write_text(HPARAMS)
    folder = tmp_path / "out"
    arguments = [tmp_path / "hparams.yaml", f"--output_folder={folder}"]
    recipes.load_recipe(list(map(str, arguments)), ToySettings)
    lines = (folder / "env.log").read_text().splitlines()
    for name in ("numpy", "speechbrain", "torch", "transformers"):
        assert f"{name}=={version(name)}" in lines
    assert "other==1.0" not in lines
    assert lines[0] == "Python " + " ".join(sys.version.split())


def main(arguments):
    hparams, run_opts = recipes.load_recipe(arguments, ToySettings)
    brain = fit(hparams, run_opts)
    folder = Path(hparams["output_folder"])
    torch.save(
        unwrap(brain.modules["model"]).state_dict(), folder / "weights.pt"
    )


if __name__ == "__main__":
    recipes.run(main)


class BrokenBrain(ToyBrain):
    """Has losses that are no numbers in some of its batches."""

    broken: tuple[int, ...] = ()

    def compute_objectives(self, predictions, batch, stage):
        loss = super().compute_objectives(predictions, batch, stage)
        is_broken = stage == sb.Stage.TRAIN and self.step in self.broken
        return loss * float("nan") if is_broken else loss


def break_batches(folder, *broken, scale=None, **run_opts):
    hparams = load(folder, number_of_epochs=1, train_loader={"batch_size": 2})
    brain = BrokenBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts={"noprogressbar": True, **run_opts},
        checkpointer=hparams["checkpointer"],
    )
    brain.broken = broken
    if scale is not None:
        brain.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    train(brain, hparams, make_data(12), make_data(4))
    return brain, (folder / "train_log.txt").read_text()


def test_a_loss_that_is_no_number_leaves_the_weights(tmp_path):
    brain, log = break_batches(tmp_path, 2, 3, 5)
    weights = brain.modules["model"].parameters()
    assert all(w.isfinite().all() for w in weights)
    assert "skipped: 1.0" in log and "nan" not in log.lower()
    assert brain.optimizer_step == 6


def test_steps_of_an_optimizer_that_are_skipped_leave_no_trace(tmp_path):
    """The same as if the batch had not been there, but for its number."""
    brain, _ = break_batches(tmp_path, *range(1, 7), nonfinite_patience=6)
    torch.manual_seed(5)
    expected = load_hyperpyyaml(
        io.StringIO(HPARAMS), {"output_folder": str(tmp_path)}
    )["model"]
    for one, other in zip(
        brain.modules["model"].parameters(), expected.parameters()
    ):
        assert torch.equal(one, other)
    assert not brain.optimizer.state


def test_a_training_that_only_skips_stops(tmp_path):
    with pytest.raises(FloatingPointError, match="4 steps in a row"):
        break_batches(tmp_path, *range(1, 7))


def test_a_scaler_finds_its_scale_and_no_more(tmp_path):
    """Above 1 it skips steps on its own, as at the beginning of a training."""
    broken = range(1, 7)
    brain, _ = break_batches(tmp_path / "high", *broken, scale=2.0**20)
    weights = brain.modules["model"].parameters()
    assert all(w.isfinite().all() for w in weights)
    with pytest.raises(FloatingPointError, match="4 steps in a row"):
        break_batches(tmp_path / "low", *broken, scale=2.0)


def test_gradients_of_all_groups_are_clipped_together(tmp_path):
    hparams = load(tmp_path)
    brain = make_brain(hparams, {"max_grad_norm": 1.0})
    one, other = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    optimizer = torch.optim.SGD([{"params": [one]}, {"params": [other]}], lr=1)
    one.grad, other.grad = torch.tensor([3.0]), torch.tensor([4.0])
    brain.take_step(optimizer)
    assert one.item() == pytest.approx(-0.6, abs=1e-5)
    assert other.item() == pytest.approx(-0.8, abs=1e-5)


SCHEDULES = {
    "warm and cool": (
        "WarmCoolDecayLRSchedule",
        {"lr": 0.01, "warmup": 2, "cooldown": 2},
    ),
    "exponential": (
        "WarmAndExpDecayLRSchedule",
        {"lr": 0.01, "n_warmup_steps": 2},
    ),
}


@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_finished_run_goes_on_by_the_new_schedule(tmp_path, kind):
    name, settings = SCHEDULES[kind]

    class Numbered:
        """Is told the number of the step, where SpeechBrain's wants it."""

        def __init__(self, schedule):
            self.schedule, self.rates = schedule, []

        def __call__(self, optimizer):
            number = [len(self.rates) + self.before + 1]
            is_told = name == "WarmCoolDecayLRSchedule"
            self.schedule(optimizer, *(number if is_told else ()))
            self.rates.append(optimizer.param_groups[0]["lr"])

    def rates(folder, epochs, before):
        hparams = load(folder, number_of_epochs=epochs)
        kind = getattr(sb.nnet.schedulers, name)
        schedule = kind(**settings, total_steps=3 * epochs)
        hparams["scheduler"] = Numbered(schedule)
        hparams["scheduler"].before = before
        hparams["checkpointer"].recoverables["scheduler"] = schedule
        fit(hparams)
        return hparams["scheduler"].rates

    rates(tmp_path / "both", 2, 0)
    found = rates(tmp_path / "both", 4, 6)
    expected = rates(tmp_path / "whole", 4, 0)
    assert found == pytest.approx(expected[6:])
    assert min(found) >= 0


def test_the_speed_is_logged(tmp_path, monkeypatch):
    """Of six steps each second; half of the time goes by in the loader."""
    now = count()
    monkeypatch.setattr(
        "spiritlm_plugin.training.speed.time.perf_counter", lambda: next(now)
    )
    hparams = load(tmp_path, number_of_epochs=1, train_loader={"batch_size": 2})
    fit(hparams | {"log_steps": 2})
    log = (tmp_path / "train_log.txt").read_text().splitlines()
    steps = [line for line in log if line.startswith("step: ")]
    assert [line.split()[1] for line in steps] == ["2", "4", "6"]
    # Two batches, each a tick; between them, and to the log, one each.
    assert "waiting: 4.0" in steps[1] and "memory_GB: " in steps[1]
