"""Train a pitch quantizer on TinySpeech: a VQ-VAE over F0 (Polyak et al. 2021).

    cd recipes/TinySpeech/pitch
    python train.py hparams/train.yaml --manifest_folder DIR

Finds the F0 of the corpus first and keeps it. Writes to the output folder the
trained part (pitch/), the same in the released form (release/), what the units
keep of F0 (report.json, report.txt) and examples of it (contours.png).
"""

from pathlib import Path

from speechbrain.utils.distributed import if_main_process

from spiritlm_plugin.integrations.export import export_pitch
from spiritlm_plugin.integrations.parts import save_part
from spiritlm_plugin.training.pitch import (
    PitchBrain,
    PitchSettings,
    evaluate,
    make_dataset,
)
from spiritlm_plugin.training.trainer import train, unwrap
from spiritlm_plugin.utils.recipes import load_recipe, run


def main(arguments):
    hparams, run_opts = load_recipe(arguments, PitchSettings)
    brain = PitchBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    datasets = {
        split: make_dataset(hparams, split, brain.device)
        for split in ["train", "valid", *hparams["test_splits"]]
    }
    train(brain, hparams, datasets.pop("train"), datasets["valid"])
    evaluate(brain, hparams, datasets)
    if if_main_process():
        quantizer = unwrap(brain.modules.vqvae).export()
        part = {"center": hparams["center"], **hparams["quantizer"]}
        folder = Path(hparams["output_folder"])
        save_part(folder / "pitch", part, quantizer)
        export_pitch(folder / "release", part, quantizer)


if __name__ == "__main__":
    run(main)
