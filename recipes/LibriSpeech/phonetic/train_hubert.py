"""Train a HuBERT of LibriSpeech that makes 25 frames a second.

It predicts the units of a teacher, a phonetic part that train_kmeans.py made,
where its input is masked:

    cd recipes/LibriSpeech/phonetic
    python train_hubert.py hparams/hubert.yaml --manifest_folder DIR \
        --teacher DIR

Writes the HuBERT as a folder of transformers, <output_folder>/hubert.
"""

from pathlib import Path

from speechbrain.utils.distributed import if_main_process

from spiritlm_plugin.training.hubert import (
    HubertBrain,
    HubertSettings,
    check_units,
    load_pretrained,
    make_dataset,
)
from spiritlm_plugin.training.trainer import train, unwrap
from spiritlm_plugin.utils.recipes import load_recipe, run


def main(arguments):
    hparams, run_opts = load_recipe(arguments, HubertSettings)
    check_units(hparams)
    if hparams["pretrained"]:
        load_pretrained(hparams["pretrained"], hparams["model"])
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
