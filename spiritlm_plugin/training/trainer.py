"""What the training recipes share: SpeechBrain's trainer, made exact."""

from __future__ import annotations

import json
import logging
import math
import random
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import speechbrain as sb
import torch
import torch.distributed as dist
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.dataio.sampler import DynamicBatchSampler
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from speechbrain.utils.distributed import (
    ddp_broadcast,
    get_rank,
    if_main_process,
)
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from spiritlm_plugin.training.checkpointer import AtomicCheckpointer
from spiritlm_plugin.training.speed import Speedometer
from spiritlm_plugin.utils.configuration import TrainingSettings
from spiritlm_plugin.utils.seeds import derive_seed

logger = logging.getLogger(__name__)

# What SpeechBrain's schedules count; all else in them are settings.
_COUNTED = ("current_lr", "current_step", "losses", "n_steps")
# Buckets of length that batches are made in.
_BUCKETS = 30
# Pieces of a model that one function is compiled for; torch allows 8.
_RECOMPILE_LIMIT = 64


def unwrap(module: nn.Module) -> Any:
    """Return the module inside a DDP wrapper, or the module itself."""
    if isinstance(module, DistributedDataParallel):
        return module.module
    return module


@partial(register_checkpoint_hooks, save_on_main_only=False)
class RunningMeans:
    """Means of named figures, over all processes, saved with a checkpoint.

    Example
    -------
    >>> means = RunningMeans()
    >>> means.add({"loss": 1.0})
    >>> means.add({"loss": 4.0}, weight=2)
    >>> means.read()
    {'loss': 3.0}
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._sums: dict[str, list[float]] = {}

    def add(self, figures: Mapping[str, Any], weight: float = 1) -> None:
        """Add figures that stand for so many items; what is no number is not."""
        for name, value in figures.items():
            number = float(torch.as_tensor(value).detach())
            if math.isfinite(number):
                pair = self._sums.setdefault(name, [0.0, 0.0])
                pair[0] += number * weight
                pair[1] += weight

    def read(self) -> dict[str, float]:
        """Return the means; all processes call it together."""
        return {n: s / w for n, (s, w) in self._gather().items() if w}

    def _gather(self) -> dict[str, list[float]]:
        """Return the sums over all processes."""
        if not dist.is_initialized():
            return self._sums
        parts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(parts, self._sums)
        total: dict[str, list[float]] = {}
        for name, pair in (item for part in parts for item in part.items()):
            sums = total.setdefault(name, [0.0, 0.0])
            for i, value in enumerate(pair):
                sums[i] += value
        return total

    @mark_as_saver
    def _save(self, path: Path) -> None:
        total = self._gather()
        if if_main_process():
            Path(path).write_text(json.dumps(total), encoding="utf-8")

    @mark_as_loader
    def _load(self, path: Path, end_of_epoch: bool) -> None:
        self.clear()
        if if_main_process():
            self._sums = json.loads(Path(path).read_text(encoding="utf-8"))


class TrainingBrain(sb.Brain):
    """SpeechBrain's Brain with exact resuming, means of figures and logs.

    Random numbers depend on nothing but the seed, the epoch, the step and the
    process, so that a run that goes on from a checkpoint is the run that was
    not interrupted. Subclasses write `compute_forward` and
    `compute_objectives`, and hand `record` what is to be logged.

    The hyperparameters hold ``seed``, ``epoch_counter``, ``train_logger`` and
    ``best``, the figure that decides which checkpoint is kept besides the
    last, as in ``{min: loss}``; and where they are wanted ``scheduler``,
    called with the optimizer at each of its steps, and
    ``tensorboard_logger`` and ``wandb_logger``, SpeechBrain's. With
    ``log_steps`` the speed is logged each so many steps; see `Speedometer`.

    A step whose gradients are not all finite is skipped, in all processes
    alike, and counted (``skipped`` in the log); the weights stay as they are.
    After more of them in a row than ``nonfinite_patience`` training stops.

    Arguments
    ---------
    *args, **kwargs
        As of `speechbrain.Brain`.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.means = RunningMeans()
        self.train_stats: dict[str, float] = {}
        self.test_stats: dict[str, float] = {}
        # By optimizer, the steps in a row that were skipped.
        self._skipped: Counter[int] = Counter()
        self.speed = Speedometer(self.device)
        if self.checkpointer is not None:
            self.checkpointer.add_recoverable("means", self.means)
            self._best()
            # With --debug each process has made a folder of its own.
            self.checkpointer.checkpoints_dir = ddp_broadcast(
                self.checkpointer.checkpoints_dir
            )

    def fit(self, *args: Any, **kwargs: Any) -> None:
        """Train; at the end the last checkpoint is complete."""
        super().fit(*args, **kwargs)
        if isinstance(self.checkpointer, AtomicCheckpointer):
            self.checkpointer.wait()

    def record(self, weight: float = 1, **figures: Any) -> None:
        """Add figures of a batch to the means of the stage."""
        self.means.add(figures, weight)

    def on_fit_start(self) -> None:
        """Start, or go on by the schedules that the YAML file asks for.

        A checkpoint's have the settings of its run, such as its last step.
        """
        schedules = [
            found
            for found in getattr(self.checkpointer, "recoverables", {}).values()
            if type(found).__module__ == "speechbrain.nnet.schedulers"
        ]
        before = [dict(vars(schedule)) for schedule in schedules]
        super().on_fit_start()
        for schedule, settings in zip(schedules, before):
            vars(schedule).update(
                {k: v for k, v in settings.items() if k not in _COUNTED}
            )

    def check_loss_isfinite(self, loss: Tensor) -> None:
        """Leave it to the step, where all processes see the same gradients."""

    def optimizers_step(self) -> None:
        """Make the step of each optimizer."""
        optimizers = self.optimizers_dict or {"optimizer": self.optimizer}
        for optimizer in self.freeze_optimizers(optimizers).values():
            self.take_step(optimizer)
        self.scaler.update()
        self.optimizer_step += 1

    def take_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradients of an optimizer, and make its step if they are finite.

        Arguments
        ---------
        optimizer : torch.optim.Optimizer
            Its gradients are gone afterwards.

        Raises
        ------
        FloatingPointError
            If too many steps in a row were skipped.
        """
        self.scaler.unscale_(optimizer)
        norm = self._clip(optimizer)
        is_finite = bool(norm.isfinite())
        if is_finite or self.scaler.is_enabled():
            self.scaler.step(optimizer)  # a scaler skips steps by itself
        # While it has to find its scale, as at the beginning, that is right.
        if is_finite or self.scaler.get_scale() > 1:
            self._skipped[id(optimizer)] = 0
        else:
            self._skip(optimizer)
        optimizer.zero_grad(set_to_none=True)

    def _clip(self, optimizer: torch.optim.Optimizer) -> Tensor:
        """Clip the gradients of all groups together; return their norm."""
        weights = [p for g in optimizer.param_groups for p in g["params"]]
        limit = self.max_grad_norm if self.max_grad_norm > 0 else math.inf
        norm = torch.nn.utils.clip_grad_norm_(weights, limit)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def _skip(self, optimizer: torch.optim.Optimizer) -> None:
        self._skipped[id(optimizer)] += 1
        in_a_row = self._skipped[id(optimizer)]
        self.record(skipped=1.0)
        logger.warning(
            "step %d is skipped: its gradients are not finite",
            self.optimizer_step + 1,
        )
        if in_a_row > self.nonfinite_patience:
            raise FloatingPointError(
                f"the gradients of {in_a_row} steps in a row are not finite; "
                "the weights are those from before. Lower the learning rate or "
                "look for what the data has there; --nonfinite_patience allows "
                "more"
            )

    def on_fit_batch_start(self, batch: Any, should_step: bool) -> None:
        """Set the seed of this step."""
        self._set_seed(self.hparams.epoch_counter.current, self.step)

    def on_fit_batch_end(
        self, batch: Any, outputs: Any, loss: Tensor, should_step: bool
    ) -> None:
        """Go on with the learning rate's schedule, and log the speed.

        If a checkpoint could not be written meanwhile, training stops here.
        """
        if isinstance(self.checkpointer, AtomicCheckpointer):
            self.checkpointer.check()
        if should_step:
            self.go_on_with_schedule()
            self._log_speed()

    def go_on_with_schedule(self) -> None:
        """Set the rate of the next step."""
        scheduler = getattr(self.hparams, "scheduler", None)
        if scheduler is not None:
            scheduler(self.optimizer)

    def _fit_train(self, train_set: Any, epoch: int, enable: bool) -> None:
        self.speed.reset()
        super()._fit_train(_Watched(train_set, self.speed), epoch, enable)

    def _log_speed(self) -> None:
        steps = getattr(self.hparams, "log_steps", None)
        if not steps or self.optimizer_step % steps:
            return
        figures = self.speed.read()
        meta = {"step": self.optimizer_step}
        self.hparams.train_logger.log_stats(meta, figures)
        tensorboard = getattr(self.hparams, "tensorboard_logger", None)
        if tensorboard is not None and tensorboard.writer is not None:
            for name, value in figures.items():
                tensorboard.writer.add_scalar(
                    f"speed/{name}", value, self.optimizer_step
                )

    def on_stage_start(self, stage: sb.Stage, epoch: int | None = None) -> None:
        """Begin new means, but in an epoch that is resumed."""
        if stage != sb.Stage.TRAIN or self.step == 0:
            self.means.clear()
        if stage != sb.Stage.TRAIN:
            self._set_seed(epoch, stage.name)

    def on_stage_end(
        self, stage: sb.Stage, stage_loss: float, epoch: int | None = None
    ) -> None:
        """Log, and save a checkpoint after each validation."""
        stats = {"loss": stage_loss} | self.means.read()
        if stage == sb.Stage.TRAIN:
            self.train_stats = stats
        elif stage == sb.Stage.TEST:
            self.test_stats = stats
        elif stage == sb.Stage.VALID:
            assert epoch is not None  # each validation ends one
            self.on_valid_end(stats, epoch)
            self._log(stats, epoch)
            self._keep_best(stats, epoch)
        self.means.clear()

    def on_valid_end(self, stats: dict[str, float], epoch: int) -> None:
        """Add to the figures of a validation, or write samples."""

    def _compile(self) -> None:
        """Compile in place with ``--compile``: weights keep their names."""
        if not self.compile:
            super()._compile()
            return
        # Attention by documents divides a model, whose layers share code then.
        torch._dynamo.config.recompile_limit = _RECOMPILE_LIMIT
        for name in self.compile_module_keys or self.modules:
            self.modules[name].compile(
                mode=self.compile_mode,
                fullgraph=self.compile_using_fullgraph,
                dynamic=self.compile_using_dynamic_shape_tracing,
            )

    def _should_save_intra_epoch_ckpt(self, *args: Any) -> bool:
        # Gradients that wait for their step are not in a checkpoint.
        steps_done = self.step % self.grad_accumulation_factor == 0
        return steps_done and super()._should_save_intra_epoch_ckpt(*args)

    def _set_seed(self, *names: Any) -> None:
        seed = derive_seed(self.hparams.seed, *names, get_rank() or 0)
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)

    def _log(self, stats: dict[str, float], epoch: int) -> None:
        meta = {"epoch": epoch, "steps": self.optimizer_step}
        if getattr(self, "optimizer", None) is not None:
            meta["lr"] = self.optimizer.param_groups[0]["lr"]
        # All processes: SpeechBrain picks the main one itself, and waits.
        self.hparams.train_logger.log_stats(meta, self.train_stats, stats)
        for name in ("tensorboard_logger", "wandb_logger"):
            other = getattr(self.hparams, name, None)
            if other is not None:
                other.log_stats(meta, self.train_stats, stats)
        tensorboard = getattr(self.hparams, "tensorboard_logger", None)
        if (
            tensorboard is not None and tensorboard.writer is not None
        ):  # on main
            tensorboard.writer.flush()

    def _keep_best(self, stats: dict[str, float], epoch: int) -> None:
        if self.checkpointer is None:
            return
        direction, key = self._best()
        if key not in stats:
            raise ValueError(
                f"best names {key!r}, which is not among the figures of a "
                f"validation: {', '.join(stats)}; correct it in the YAML file"
            )
        figures = {name: float(value) for name, value in stats.items()}
        self.checkpointer.save_and_keep_only(
            meta={"epoch": epoch} | figures, **{f"{direction}_keys": [key]}
        )

    def _best(self) -> tuple[str, str]:
        best = getattr(self.hparams, "best", None)
        if not isinstance(best, Mapping) or list(best) not in (
            ["min"],
            ["max"],
        ):
            raise ValueError(
                f"best should be as in {{min: loss}} or {{max: accuracy}}, got "
                f"{best!r}; correct it in the YAML file"
            )
        return next(iter(best.items()))


class _Watched:
    """A loader whose batches are waited for by the clock."""

    def __init__(self, loader: Any, speed: Speedometer):
        self.loader, self.speed = loader, speed

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        return self.speed.watch(self.loader)


class LoaderSettings(TrainingSettings):
    """What `train` reads besides."""

    train_loader: dict[str, Any]
    valid_loader: dict[str, Any]


def train(
    brain: TrainingBrain,
    hparams: LoaderSettings,
    train_data: DynamicItemDataset,
    valid_data: DynamicItemDataset,
) -> None:
    """Train, from the last checkpoint if there is one.

    Arguments
    ---------
    brain : TrainingBrain
        With a checkpointer.
    hparams : LoaderSettings
        ``train_loader`` and ``valid_loader`` are arguments of the data loaders,
        where ``batch_seconds`` makes batches of so many seconds, padding
        included, of utterances of similar length.
    train_data, valid_data : DynamicItemDataset
        With a duration for each utterance.
    """
    seed = hparams["seed"]
    loader = _loader_arguments(hparams["train_loader"], train_data, seed)
    brain.train_sampler = loader.get("batch_sampler")
    brain.fit(
        hparams["epoch_counter"],
        train_data,
        valid_data,
        train_loader_kwargs=loader,
        valid_loader_kwargs=_loader_arguments(
            hparams["valid_loader"], valid_data
        ),
    )


def _loader_arguments(
    arguments: Mapping[str, Any],
    data: DynamicItemDataset,
    seed: int | None = None,
) -> dict[str, Any]:
    """Return a data loader's arguments; shuffled where there is a seed."""
    arguments = dict(arguments)
    if arguments.get("num_workers") and sys.platform == "linux":
        # Python 3.14 would send the data to its workers as a pickle, which the
        # functions that make a dataset's items need not survive.
        arguments.setdefault("multiprocessing_context", "fork")
    seconds = arguments.pop("batch_seconds", None)
    if seconds is None:
        return arguments | {"shuffle": seed is not None}
    sampler = DynamicBatchSampler(
        data,
        max_batch_length=seconds,
        num_buckets=_BUCKETS,
        shuffle=seed is not None,
        batch_ordering="ascending" if seed is None else "random",
        seed=seed or 0,
    )
    # SpeechBrain cannot share batches out where each process gets just one.
    processes = dist.get_world_size() if dist.is_initialized() else 1
    if seed is not None and 1 < processes >= len(sampler):
        raise ValueError(
            f"{len(sampler)} batches of {seconds} s are too few for "
            f"{processes} processes; lower batch_seconds, or start fewer"
        )
    return arguments | {"batch_sampler": sampler}
