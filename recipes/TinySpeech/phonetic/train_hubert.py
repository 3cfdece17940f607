"""Train a HuBERT that makes 25 frames a second.

It predicts the units of a teacher, a phonetic part that train_kmeans.py made,
where its input is masked:

    python recipes/TinySpeech/phonetic/train_hubert.py \
        recipes/TinySpeech/phonetic/hparams/hubert.yaml \
        --manifest_folder DIR --teacher DIR

Writes the HuBERT as a folder of transformers, <output_folder>/hubert.
"""

import json
from pathlib import Path

import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.data_pipeline import provides, takes
from speechbrain.utils.distributed import if_main_process
from torch.nn import functional as F

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.units.units import PHONETIC_HOP, SAMPLE_RATE
from spiritlm_plugin.training.teacher import teacher_units
from spiritlm_plugin.training.trainer import TrainingBrain, train, unwrap
from spiritlm_plugin.utils.recipes import load_recipe, run
from spiritlm_plugin.utils.seeds import item_generator


class HubertBrain(TrainingBrain):
    def compute_forward(self, batch, stage):
        batch = batch.to(self.device)
        wavs, relative = batch.signal
        lengths = (relative * wavs.shape[1]).round().long()
        return self.modules.model(wavs, lengths)

    def compute_objectives(self, predictions, batch, stage):
        scores, lengths, masked = predictions
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
        loss = 0.0
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


def make_dataset(hparams, brain, split):
    """Return waveforms and their units; long ones are cut at random."""
    corpus = teacher_units(hparams, brain, split)
    most = int(hparams["longest_seconds"] * SAMPLE_RATE) // PHONETIC_HOP
    samples = hparams["model"].encoder.input_length(most)
    seed, epochs = hparams["seed"], hparams["epoch_counter"]

    @takes("utterance", "wav", "phonetic_units")
    @provides("signal", "targets")
    def crop(name, path, units):
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


def check_units(hparams):
    """Raise if the model does not predict the units of the teacher."""
    config = Path(hparams["teacher"]) / "config.json"
    teacher = json.loads(config.read_text("utf-8"))["quantizer"]["units"]
    if teacher != hparams["units"]:
        raise ValueError(
            f"the teacher in {hparams['teacher']} has {teacher} units, and "
            f"units is {hparams['units']}; pass --units {teacher}"
        )


def main(arguments):
    hparams, run_opts = load_recipe(arguments)
    check_units(hparams)
    brain = HubertBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    data = [make_dataset(hparams, brain, s) for s in ("train", "valid")]
    train(brain, hparams, *data)
    hparams["checkpointer"].recover_if_possible(min_key="loss")
    if if_main_process():
        hubert = unwrap(brain.modules.model).encoder.model
        hubert.save_pretrained(Path(hparams["output_folder"]) / "hubert")


if __name__ == "__main__":
    run(main)
