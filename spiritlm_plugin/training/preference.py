"""A language model that learns which of its answers are better."""

from __future__ import annotations

import logging
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from speechbrain import Stage
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from speechbrain.utils.distributed import if_main_process
from torch import Tensor, nn
from torch import distributed as dist
from torch.utils.data import DataLoader
from tqdm import tqdm

from spiritlm_plugin.dataio.checkpoints import (
    CheckpointError,
    read_safetensors,
)
from spiritlm_plugin.dataio.stream.pair_loader import (
    EvenBatches,
    PairLoader,
)
from spiritlm_plugin.dataio.stream.preferences import (
    Pair,
    PreferenceError,
    Tokens,
    read_pairs,
    tokens_of,
)
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.inference import SpiritLM
from spiritlm_plugin.lobes.language_model import LanguageModel
from spiritlm_plugin.lobes.preference_loss import (
    answer_log_likelihoods,
    preference_loss,
)
from spiritlm_plugin.training.pretraining import (
    LanguageModelBrain,
    load_to_train,
)
from spiritlm_plugin.utils.arguments import number, whole_number
from spiritlm_plugin.utils.configuration import TrainingSettings
from spiritlm_plugin.utils.processes import rank_and_world_size

logger = logging.getLogger(__name__)

SPLITS = ("train", "valid")
# Numbers of each weight that tell a start from another.
_TOLD_BY = 1000


class PreferenceSettings(TrainingSettings):
    """What the training of preferences reads."""

    pairs_folder: str
    model: str
    hparams_file: str
    dtype: str
    lora: dict[str, Any]
    activation_checkpointing: bool
    fsdp: bool
    beta: float
    likelihood_weight: float
    epoch_steps: int
    step_pairs: int
    batch_pairs: int
    max_tokens: int | None
    export_dtype: str | None
    opt_class: Any


@register_checkpoint_hooks
class Reference:
    """What the model that training starts from makes of all answers.

    Saved with each checkpoint, so that there is no second model in memory,
    and a training that goes on has the same start.

    Arguments
    ---------
    pairs : dict
        Of each split its pairs.
    start : LanguageModel
        The model, before it is trained.

    Raises
    ------
    CheckpointError
        If it is loaded for other pairs, or another start, than it was saved
        for.
    """

    def __init__(self, pairs: dict[str, list[Tokens]], start: LanguageModel):
        self._pairs = torch.tensor(_checksum(pairs))
        self._start = torch.tensor(_checksum_of_weights(start))
        # By split, in nats, of chosen and rejected answers: (2, pairs).
        self.sums = {
            split: torch.zeros(2, len(some)) for split, some in pairs.items()
        }

    @mark_as_saver
    def _save(self, path: Path) -> None:
        begun = {"pairs": self._pairs, "start": self._start}
        save_file(self.sums | begun, path)

    @mark_as_loader
    def _load(self, path: Path, end_of_epoch: bool) -> None:
        found = read_safetensors(path, "delete the checkpoint it is in")
        if not torch.equal(found.pop("pairs"), self._pairs):
            raise CheckpointError(
                f"{path} is of a training on other pairs; name another "
                "output_folder, or the pairs that it was begun with"
            )
        start = found.pop("start")
        # Weights that are to be shared out are in the main process alone.
        if if_main_process() and not torch.equal(start, self._start):
            raise CheckpointError(
                f"{path} is of a training of another model; name another "
                "output_folder, or the model that it was begun with"
            )
        self.sums = found


def _checksum(pairs: dict[str, list[Tokens]]) -> int:
    found = 0
    for some in pairs.values():
        for ids in (ids for pair in some for ids in pair):
            found = zlib.crc32(ids.tobytes(), found + len(ids))
    return found


def _checksum_of_weights(lm: LanguageModel) -> int:
    weights = lm.model.state_dict() if lm.held is None else lm.held
    found = 0
    for name, weight in sorted(weights.items()):
        if "lora_" not in name:
            some = weight.flatten()[:_TOLD_BY].float().cpu()
            found = zlib.crc32(some.numpy().tobytes(), found)
    return found


class PreferenceBrain(LanguageModelBrain):
    """Trains a `LanguageModel` on pairs of answers.

    ``reference`` and ``batches`` are set after it is made; see
    `prepare_reference`.

    Source: Rafailov et al., "Direct Preference Optimization: Your Language
    Model is Secretly a Reward Model", NeurIPS 2023; the likelihood of the
    chosen answers beside it: Pang et al., "Iterative Reasoning Preference
    Optimization", NeurIPS 2024, equation 1.
    """

    reference: Reference
    batches: dict[str, EvenBatches]

    def init_optimizers(self) -> None:
        """Make the optimizer; ask the model that the training starts from."""
        super().init_optimizers()
        self.checkpointer.add_recoverable("reference", self.reference)
        if self.checkpointer.find_checkpoint() is None:
            for split, batches in self.batches.items():
                self.reference.sums[split] = self._measure(split, batches)

    @torch.no_grad()
    def _measure(self, split: str, batches: EvenBatches) -> Tensor:
        """Return the log-likelihood of all answers, in all processes."""
        self.modules.eval()
        is_train = split == "train"
        context = self.training_ctx if is_train else self.evaluation_ctx
        sums = torch.zeros(2, len(batches.pairs))
        for batch in tqdm(
            DataLoader(batches, batch_size=None),
            desc=f"reference, {split}",
            disable=self.noprogressbar or rank_and_world_size()[0] > 0,
        ):
            with context:
                found = self.compute_forward(batch, Stage.VALID)
            sums[:, batch.numbers] = found.view(2, -1).float().cpu()
        if dist.is_initialized():
            sums = sums.to(self.device)
            dist.all_reduce(sums)
        if not sums.isfinite().all():
            raise FloatingPointError(
                "the model that training starts from finds some answers of "
                f"{split}.jsonl NaN or infinitely unlikely; train with another "
                "precision, such as --precision bf16"
            )
        return sums.cpu()

    def compute_forward(self, batch: Any, stage: Stage) -> Any:
        """Return the log-likelihood of each row of a `PairBatch`, as a tensor."""
        ids, labels = (
            x.to(self.device, non_blocking=True)
            for x in (batch.ids, batch.labels)
        )
        score = partial(answer_log_likelihoods, labels=labels)
        return self.modules.model(ids, score=score)

    def compute_objectives(
        self, predictions: Any, batch: Any, stage: Stage
    ) -> Tensor:
        """Return the loss, so that all pairs of a step count alike."""
        split = "train" if stage == Stage.TRAIN else "valid"
        start = self.reference.sums[split][:, batch.numbers]
        sums = predictions.view(2, -1)
        ratios = sums - start.to(self.device)
        tokens = (batch.labels >= 0).sum(1).view(2, -1).to(self.device)
        losses = preference_loss(ratios, self.hparams.beta)
        self._record(losses.detach(), ratios.detach(), tokens)
        if self.hparams.likelihood_weight:
            likelihoods = sums[0] / tokens[0]
            losses = losses - self.hparams.likelihood_weight * likelihoods
        self.record(len(losses), loss=losses.detach().mean())
        return losses.sum() * batch.shares / batch.step_pairs

    def _record(self, losses: Tensor, ratios: Tensor, tokens: Tensor) -> None:
        rewards = self.hparams.beta * ratios
        margins = rewards[0] - rewards[1]
        self.record(
            len(losses),
            preference_loss=losses.mean(),
            accuracy=(margins > 0).float().mean(),
            margin=margins.mean(),
            chosen=rewards[0].mean(),
            rejected=rewards[1].mean(),
        )
        # The answers are the start's own: so it is an estimate of how far the
        # model has moved from there, a divergence.
        self.record(float(tokens.sum()), drift=-ratios.sum() / tokens.sum())

    def on_valid_end(self, stats: dict[str, float], epoch: int) -> None:
        """Say nothing: what the model answers is for the evaluations."""


def load_start(hparams: PreferenceSettings) -> LanguageModel:
    """Return the language model that a training starts from.

    Arguments
    ---------
    hparams : PreferenceSettings
        The recipe's. With ``fsdp`` the weights wait in the main process until
        they are shared out; see `hold`.

    Raises
    ------
    FileNotFoundError, ValueError, CheckpointError
        As of `SpiritLM.from_hparams`; or if adapters are to be sharded, or a
        setting is out of range.
    """
    _check(hparams)
    settings: Any = hparams
    return load_to_train(partial(_load, hparams), settings)


def _check(hparams: PreferenceSettings) -> None:
    if number("beta", hparams["beta"]) <= 0:
        raise ValueError(f"beta should be above 0, got {hparams['beta']}")
    weight = number("likelihood_weight", hparams["likelihood_weight"])
    if weight < 0:
        raise ValueError(f"likelihood_weight should be 0 or more, got {weight}")
    if hparams["max_tokens"] is not None:
        whole_number("max_tokens", hparams["max_tokens"])


def _load(hparams: PreferenceSettings) -> LanguageModel:
    # Not alone: its folder may say how it is to be loaded.
    whole = SpiritLM.from_hparams(
        hparams["model"],
        hparams["hparams_file"],
        overrides={"language_model_dtype": hparams["dtype"]},
        freeze_params=False,
    )
    return whole.mods.language_model


def load_pairs(
    hparams: PreferenceSettings, lm: LanguageModel
) -> dict[str, list[Tokens]]:
    """Read the pairs of training and validation, those that are not too long.

    Arguments
    ---------
    hparams : PreferenceSettings
        The recipe's.
    lm : LanguageModel
        Whose ids they become.

    Raises
    ------
    FileNotFoundError, PreferenceError
        As of `read_pairs`.
    ValueError
        If a pair cannot be used, or none teaches anything.
    """
    longest = min(hparams["max_tokens"] or lm.context, lm.context)
    return {
        split: fitting_pairs(
            Path(hparams["pairs_folder"]) / f"{split}.jsonl",
            lm.vocabulary,
            longest,
        )
        for split in SPLITS
    }


def fitting_pairs(
    path: Path, vocabulary: Vocabulary, longest: int
) -> list[Tokens]:
    """Read the pairs of so many tokens at most, whose answers differ.

    Arguments
    ---------
    path : Path
        As of `read_pairs`.
    vocabulary : Vocabulary
        Whose ids they become.
    longest : int
        Tokens of a prompt with the longer one of its answers.

    Raises
    ------
    FileNotFoundError, PreferenceError
        As of `read_pairs`; or naming a pair that the model cannot read.
    ValueError
        If none is left.

    Example
    -------
    >>> from spiritlm_plugin.dataio.stream.preferences import (
    ...     Candidate, Pair, write_pairs
    ... )
    >>> answers = [Candidate([Text(text)], True) for text in ("a cat", "a")]
    >>> write_pairs(tmp / "a.jsonl", [Pair("1", [Text("b")], "text", *answers)])
    >>> vocabulary = Vocabulary.extend(example_text_tokenizer(), phonetic=4)
    >>> len(fitting_pairs(tmp / "a.jsonl", vocabulary, 100))
    1
    """
    pairs = [_tokens(path, pair, vocabulary) for pair in read_pairs(path)]
    differing = [pair for pair in pairs if pair.differs]
    kept = [pair for pair in differing if pair.longest <= longest]
    if not differing:
        raise ValueError(
            f"all pairs of {path} have the same answer twice; choose others"
        )
    if not kept:
        raise ValueError(
            f"all pairs of {path} have more than {longest} tokens, the "
            f"shortest {min(p.longest for p in differing)}; raise max_tokens"
        )
    for count, fault in (
        (len(pairs) - len(differing), "the same answer twice"),
        (len(differing) - len(kept), f"more than {longest} tokens"),
    ):
        if count:
            logger.warning(
                "%d of %d pairs of %s have %s and are left out",
                count,
                len(pairs),
                path,
                fault,
            )
    return kept


def _tokens(path: Path, pair: Pair, vocabulary: Vocabulary) -> Tokens:
    try:
        return tokens_of(pair, vocabulary)
    except ValueError as error:
        raise PreferenceError(
            f"{path}, pair {pair.id!r}: {error}; pairs have to be of units and "
            "outputs that the model has"
        ) from error


def prepare_reference(
    brain: PreferenceBrain,
    pairs: dict[str, list[Tokens]],
    filler: int,
) -> tuple[PairLoader, DataLoader]:
    """Give a Brain what it compares with; return its loaders.

    The model's dropout is switched off, see `switch_dropout_off`.

    Arguments
    ---------
    brain : PreferenceBrain
        Whose attributes are set.
    pairs : dict
        Of `load_pairs`.
    filler : int
        As of `PairBatch.of`.

    Raises
    ------
    ValueError
        As of `PairLoader` and `EvenBatches`.
    """
    hparams: Any = vars(brain.hparams)
    rank, world_size = rank_and_world_size()
    loader = PairLoader(
        pairs["train"],
        hparams["step_pairs"],
        hparams["epoch_steps"],
        filler,
        hparams["seed"],
        brain.grad_accumulation_factor,
        rank,
        world_size,
    )
    switch_dropout_off(brain.modules.model)
    brain.reference = Reference(pairs, brain.modules.model)
    brain.batches = {
        split: EvenBatches(
            some, hparams["batch_pairs"], filler, rank, world_size
        )
        for split, some in pairs.items()
    }
    brain.checkpointer.add_recoverable("loader", loader)
    return loader, DataLoader(brain.batches["valid"], batch_size=None)


def switch_dropout_off(model: nn.Module) -> None:
    """Let a model, and its adapters, compute alike in training and else.

    With dropout an answer would be likelier or less likely than by the start
    before anything is learned.

    Source: as trl does it, by its ``disable_dropout``.

    Arguments
    ---------
    model : nn.Module
        Is changed.

    Example
    -------
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.5))
    >>> switch_dropout_off(model)
    >>> model[1].p
    0.0
    """
    found = False
    for module in model.modules():
        for name, value in list(vars(module).items()):
            drops = "drop" in name or isinstance(module, nn.Dropout)
            if drops and isinstance(value, float) and value > 0:
                setattr(module, name, 0.0)
                found = True
    if found:
        logger.warning(
            "dropout is off: answers are compared with what the start makes of "
            "them, which is computed without"
        )
