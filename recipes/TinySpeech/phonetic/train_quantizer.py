"""Train a quantizer that gives changed audio the units of the clean audio.

The teacher is a phonetic part that train_kmeans.py made of a HuBERT. Its units
of clean TinySpeech, deduplicated, are CTC targets for its features of changed audio
(Gat et al. 2023):

    cd recipes/TinySpeech/phonetic
    python train_quantizer.py hparams/quantizer.yaml --manifest_folder DIR \
        --teacher DIR

Writes the phonetic part, <output_folder>/phonetic, and its quantizer in the
released form, quantizer.pt.
"""

from pathlib import Path

from speechbrain.utils.distributed import if_main_process

from spiritlm_plugin.integrations.export_phonetic import export_quantizer
from spiritlm_plugin.integrations.parts import save_part
from spiritlm_plugin.training.quantizer import (
    QuantizerBrain,
    QuantizerSettings,
    load_teacher,
    make_dataset,
)
from spiritlm_plugin.training.trainer import train
from spiritlm_plugin.utils.recipes import load_recipe, run


def main(arguments):
    hparams, run_opts = load_recipe(arguments, QuantizerSettings)
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
