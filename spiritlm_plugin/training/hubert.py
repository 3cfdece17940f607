"""HuBERT at 25 frames a second, from the units of a teacher."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import speechbrain as sb
import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.data_pipeline import provides, takes
from torch import Tensor
from torch.nn import functional as F
from transformers import HubertModel

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.checkpoints import load_state
from spiritlm_plugin.dataio.corpus.stores import load_corpus
from spiritlm_plugin.dataio.units.units import PHONETIC_HOP, SAMPLE_RATE
from spiritlm_plugin.lobes.hubert_pretraining import MaskedUnitPrediction
from spiritlm_plugin.lobes.voice_changes import change_in_float32
from spiritlm_plugin.training.teacher import TeacherSettings, teacher_units
from spiritlm_plugin.training.trainer import TrainingBrain
from spiritlm_plugin.utils.files import read_json
from spiritlm_plugin.utils.seeds import item_generator


class HubertSettings(TeacherSettings):
    """What the training of a HuBERT reads."""

    pretrained: str | None
    units: int
    model: Any
    modules: dict[str, Any]
    longest_seconds: float
    heard_weight: float
    penalty_weight: float
    augmenter: Any


class HubertBrain(TrainingBrain):
    """Predicts the units of a teacher, where its input is masked.

    In training the input is changed, and the units are those of the recording
    as it is, so that the features say what was said rather than by whom.

    Source: Hsu et al., "HuBERT: Self-Supervised Speech Representation Learning
    by Masked Prediction of Hidden Units", 2021, section II; changed input:
    Chen et al., "WavLM", 2022, section III-B.
    """

    def compute_forward(
        self, batch: Any, stage: sb.Stage
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return scores, lengths and what is masked, and a penalty."""
        batch = batch.to(self.device)
        wavs, relative = batch.signal
        if stage == sb.Stage.TRAIN and self.hparams.augmenter is not None:
            changes = self.hparams.augmenter
            wavs, relative = change_in_float32(changes, wavs, relative)
        lengths = (relative * wavs.shape[1]).round().long()
        return self.modules.model(wavs, lengths)

    def compute_objectives(
        self,
        predictions: tuple[Tensor, Tensor, Tensor, Tensor],
        batch: Any,
        stage: sb.Stage,
    ) -> Tensor:
        """Return the cross-entropy of masked frames, and shares of the rest."""
        scores, lengths, masked, penalty = predictions
        targets, _ = batch.targets
        if targets.shape[1] != scores.shape[1]:
            raise ValueError(
                f"the teacher gives {targets.shape[1]} frames where the "
                f"HuBERT gives {scores.shape[1]}; check that its conv_stride "
                f"multiplies to {PHONETIC_HOP}"
            )
        frames = torch.arange(scores.shape[1], device=self.device)
        inside = frames < lengths[:, None]
        errors = F.cross_entropy(
            scores.flatten(0, 1), targets.flatten(), reduction="none"
        ).view_as(targets)
        right = (scores.argmax(-1) == targets).float()
        self.record(penalty=penalty)
        loss = self.hparams.penalty_weight * penalty
        for name, where, weight in (
            ("masked", inside & masked, 1.0),
            ("heard", inside & ~masked, self.hparams.heard_weight),
        ):
            count = where.sum().clamp(min=1)
            part = errors[where].sum() / count
            figures = {"loss": part, "accuracy": right[where].sum() / count}
            self.record(
                int(count), **{f"{name}_{k}": v for k, v in figures.items()}
            )
            loss = loss + weight * part
        return loss


def load_pretrained(folder: str | Path, model: MaskedUnitPrediction) -> None:
    """Give a model the weights of a trained HuBERT; its units are learned anew.

    Raises
    ------
    CheckpointError
        If it has another shape.
    """
    known = HubertModel.from_pretrained(folder)
    load_state(model.encoder.model, known.state_dict(), folder)


def make_dataset(
    hparams: HubertSettings, brain: sb.Brain, split: str
) -> DynamicItemDataset:
    """Return waveforms and their units; long ones are cut at random.

    Arguments
    ---------
    hparams : HubertSettings
        The recipe's.
    brain : speechbrain.Brain
        On whose device the teacher runs.
    split : str
        Of the manifests.
    """
    corpus = teacher_units(hparams, brain, split)
    most = int(hparams["longest_seconds"] * SAMPLE_RATE) // PHONETIC_HOP
    samples = hparams["model"].encoder.input_length(most)
    seed, epochs = hparams["seed"], hparams["epoch_counter"]

    @takes("utterance", "wav", "phonetic_units")
    @provides("signal", "targets")
    def crop(name: str, path: str, units: Tensor) -> Iterator[Tensor]:
        wav = read_audio(path)
        if len(units) > most:
            generator = item_generator(seed, epochs.current, name)
            spare = len(units) - most
            start = int(torch.randint(spare + 1, (), generator=generator))
            units = units[start : start + most]
            wav = wav[start * PHONETIC_HOP :][:samples]
        yield wav
        yield units

    data = DynamicItemDataset.from_arrow_dataset(corpus)
    data.add_dynamic_item(crop)
    data.set_output_keys(["utterance", "signal", "targets"])
    return data


def check_units(hparams: HubertSettings) -> None:
    """Raise ValueError if the model has other units than its teacher.

    Of units that are there already, if one is beyond those of the model.
    """
    if hparams["units_folder"] is not None:
        for split in ("train", "valid"):
            store = load_corpus(Path(hparams["units_folder"]) / split)
            largest = pc.max(pc.list_flatten(store.data["phonetic_units"]))
            if largest.as_py() >= hparams["units"]:
                raise ValueError(
                    f"{hparams['units_folder']} has units up to {largest}, and "
                    f"units is {hparams['units']}; pass --units"
                )
        return
    config = Path(hparams["teacher"]) / "config.json"
    teacher = read_json(config, "train the teacher again")["quantizer"]["units"]
    if teacher != hparams["units"]:
        raise ValueError(
            f"the teacher in {hparams['teacher']} has {teacher} units, and "
            f"units is {hparams['units']}; pass --units {teacher}"
        )
