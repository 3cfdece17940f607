"""Train a quantizer that gives changed audio the units of the clean audio.

The teacher is a phonetic part that train_kmeans.py made of a HuBERT. Its units
of clean audio, deduplicated, are CTC targets for its features of changed audio
(Gat et al. 2023):

    python recipes/TinySpeech/phonetic/train_quantizer.py \
        recipes/TinySpeech/phonetic/hparams/quantizer.yaml \
        --manifest_folder DIR --teacher DIR

Writes the phonetic part, <output_folder>/phonetic, and its quantizer in the
released form, quantizer.pt.
"""

import json
from pathlib import Path

import torch
from speechbrain import Stage
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.data_pipeline import provides, takes
from speechbrain.utils.distributed import if_main_process
from speechbrain.utils.seed import seed_everything
from torch.nn import functional as F

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.integrations.export_phonetic import export_quantizer
from spiritlm_plugin.integrations.parts import load_part, save_part
from spiritlm_plugin.lobes.phonetic import LinearQuantizer, fill_blanks
from spiritlm_plugin.metrics.units import unit_edit_distance
from spiritlm_plugin.training.teacher import teacher_units
from spiritlm_plugin.training.trainer import TrainingBrain, train
from spiritlm_plugin.utils.recipes import load_recipe, run


class QuantizerBrain(TrainingBrain):
    def on_stage_start(self, stage, epoch=None):
        super().on_stage_start(stage, epoch)
        if stage != Stage.TRAIN:
            # The same changes in each validation.
            seed_everything(self.hparams.seed, verbose=False)

    def compute_forward(self, batch, stage):
        batch = batch.to(self.device)
        wavs, relative = self.hparams.augmenter(*batch.signal)
        lengths = (relative * wavs.shape[1]).round().long()
        with torch.no_grad():
            features, lengths = self.tokenizer.features(wavs, lengths)
        return self.modules.layers(features), lengths

    def compute_objectives(self, predictions, batch, stage):
        scores, lengths = predictions
        targets, relative = batch.targets
        target_lengths = (relative * targets.shape[1]).round().long()
        quantizer = self.tokenizer.quantizer
        if stage != Stage.TRAIN:
            units = fill_blanks(scores.argmax(-1), lengths, quantizer.units)
            pairs = zip(targets, target_lengths, units, lengths)
            clean, changed = zip(*((t[:n], u[:m]) for t, n, u, m in pairs))
            changes = unit_edit_distance(clean, changed)
            self.record(int(target_lengths.sum()), unit_edit_distance=changes)
        return F.ctc_loss(
            scores.float().log_softmax(-1).transpose(0, 1),
            targets,
            lengths,
            target_lengths,
            quantizer.units,
            zero_infinity=True,
        )


def make_dataset(hparams, brain, split):
    """Return waveforms and the teacher's deduplicated units."""

    @takes("wav", "phonetic_units")
    @provides("signal", "targets")
    def load(path, units):
        yield read_audio(path)
        yield units.unique_consecutive()

    data = DynamicItemDataset.from_arrow_dataset(
        teacher_units(hparams, brain, split)
    )
    data.add_dynamic_item(load)
    data.set_output_keys(["signal", "targets"])
    return data


def load_teacher(folder):
    """Return the teacher's arguments and HuBERT, with a new quantizer."""
    config = Path(folder) / "config.json"
    arguments = json.loads(config.read_text(encoding="utf-8"))
    tokenizer = load_part("phonetic", folder).requires_grad_(False)
    dim, units = (arguments["quantizer"][k] for k in ("input_dim", "units"))
    arguments["quantizer"] = {
        "input_dim": dim,
        "units": units,
        "hidden_dims": LinearQuantizer.released_dims(dim, units),
    }
    tokenizer.quantizer = LinearQuantizer(**arguments["quantizer"])
    return arguments, tokenizer


def main(arguments):
    hparams, run_opts = load_recipe(arguments)
    part, tokenizer = load_teacher(hparams["teacher"])
    layers = tokenizer.quantizer.layers
    hparams["checkpointer"].add_recoverable("layers", layers)
    brain = QuantizerBrain(
        modules={"layers": layers},
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    # Beside the modules, which are set to training.
    brain.tokenizer = tokenizer.to(brain.device)
    data = [make_dataset(hparams, brain, s) for s in ("train", "valid")]
    train(brain, hparams, *data)
    hparams["checkpointer"].recover_if_possible(min_key="unit_edit_distance")
    if if_main_process():
        folder = Path(hparams["output_folder"])
        save_part(folder / "phonetic", part, tokenizer)
        export_quantizer(folder / "quantizer.pt", tokenizer.quantizer)


if __name__ == "__main__":
    run(main)
