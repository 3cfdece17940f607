"""A quantizer that gives changed audio the units of the clean audio."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import speechbrain as sb
import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.data_pipeline import provides, takes
from speechbrain.utils.seed import seed_everything
from torch import Tensor
from torch.nn import functional as F

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.integrations.parts import load_part
from spiritlm_plugin.lobes.phonetic import (
    LinearQuantizer,
    PhoneticTokenizer,
    fill_blanks,
)
from spiritlm_plugin.lobes.voice_changes import change_in_float32
from spiritlm_plugin.metrics.units import unit_edit_distance
from spiritlm_plugin.training.teacher import TeacherSettings, teacher_units
from spiritlm_plugin.training.trainer import TrainingBrain
from spiritlm_plugin.utils.files import read_json

# Utterances that a teacher has to say something of.
_TRIED = 100


class QuantizerSettings(TeacherSettings):
    """What the training of a quantizer reads."""

    augmenter: Any


class QuantizerBrain(TrainingBrain):
    """Learns a teacher's units of clean audio from features of changed audio.

    The units, deduplicated, are CTC targets. The teacher is k-means, or the
    quantizer of an iteration before. ``tokenizer`` is set after it is made, so
    that it stays in evaluation.

    Source: Gat et al., "Augmentation Invariant Discrete Representation for
    Generative Spoken Language Modeling", 2023.
    """

    tokenizer: PhoneticTokenizer

    def on_stage_start(self, stage: sb.Stage, epoch: int | None = None) -> None:
        """Make the same changes in each validation."""
        super().on_stage_start(stage, epoch)
        if stage != sb.Stage.TRAIN:
            seed_everything(self.hparams.seed, verbose=False)

    def compute_forward(
        self, batch: Any, stage: sb.Stage
    ) -> tuple[Tensor, Tensor]:
        """Return the scores of units, and lengths, of changed audio."""
        batch = batch.to(self.device)
        changes = self.hparams.augmenter
        wavs, relative = change_in_float32(changes, *batch.signal)
        lengths = (relative * wavs.shape[1]).round().long()
        with torch.no_grad():
            features, lengths = self.tokenizer.features(wavs, lengths)
        return self.modules.layers(features), lengths

    def compute_objectives(
        self, predictions: tuple[Tensor, Tensor], batch: Any, stage: sb.Stage
    ) -> Tensor:
        """Return the CTC loss; count the units that changes change."""
        scores, lengths = predictions
        targets, relative = batch.targets
        target_lengths = (relative * targets.shape[1]).round().long()
        quantizer = self.tokenizer.quantizer
        if stage != sb.Stage.TRAIN:
            units = fill_blanks(scores.argmax(-1), lengths, quantizer.units)
            pairs = zip(targets, target_lengths, units, lengths)
            clean, changed = zip(*((t[:n], u[:m]) for t, n, u, m in pairs))
            count = int(target_lengths.sum())
            if count:
                changes = unit_edit_distance(clean, changed)
                self.record(count, unit_edit_distance=changes)
        return F.ctc_loss(
            scores.float().log_softmax(-1).transpose(0, 1),
            targets,
            lengths,
            target_lengths,
            quantizer.units,
            zero_infinity=True,
        )


def make_dataset(
    hparams: QuantizerSettings, brain: QuantizerBrain, split: str
) -> DynamicItemDataset:
    """Return waveforms and the teacher's deduplicated units.

    Arguments
    ---------
    hparams : QuantizerSettings
        The recipe's.
    brain : QuantizerBrain
        On whose device the teacher runs; with its tokenizer.
    split : str
        Of the manifests.

    Raises
    ------
    ValueError
        If the teacher gives the first utterances nothing but blanks.
    """
    blank = brain.tokenizer.quantizer.units

    @takes("wav", "phonetic_units")
    @provides("signal", "targets")
    def load(path: str, units: Tensor) -> Iterator[Tensor]:
        yield read_audio(path)
        # A linear teacher has blanks, where it hears nothing at all.
        yield units[units < blank].unique_consecutive()

    corpus = teacher_units(hparams, brain, split)
    tried = corpus[:_TRIED]["phonetic_units"]
    if all(bool((units >= blank).all()) for units in tried):
        raise ValueError(
            f"{hparams['teacher']} gives the first {len(tried)} utterances of "
            f"{split} nothing but blanks; train it longer"
        )
    data = DynamicItemDataset.from_arrow_dataset(corpus)
    data.add_dynamic_item(load)
    data.set_output_keys(["signal", "targets"])
    return data


def load_teacher(
    folder: str | Path,
) -> tuple[dict[str, Any], PhoneticTokenizer]:
    """Return a teacher's arguments and HuBERT, with a new linear quantizer."""
    config = Path(folder) / "config.json"
    arguments = read_json(config, "train the teacher again")
    tokenizer: Any = load_part("phonetic", folder).requires_grad_(False)
    dim, units = (arguments["quantizer"][k] for k in ("input_dim", "units"))
    arguments["quantizer"] = {
        "input_dim": dim,
        "units": units,
        "hidden_dims": LinearQuantizer.released_dims(dim, units),
    }
    tokenizer.quantizer = LinearQuantizer(**arguments["quantizer"])
    return arguments, tokenizer
