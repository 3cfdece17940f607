"""Train a classifier of the sentiment of texts, or of voices, of TinySpeech.

    cd recipes/TinySpeech/sentiment
    python train_classifier.py hparams/text_classifier.yaml --data_folder ARCHIVE
    python train_classifier.py hparams/speech_classifier.yaml \
        --data_folder ARCHIVE

ARCHIVE is in the layout of the STSP benchmark. Writes to the output folder the
classifier of the best validation as a transformers folder (classifier/), and
report.json. Runs under torchrun, and goes on where it was stopped.
"""

from spiritlm_plugin.dataio.corpus.stsp import STSPArchive
from spiritlm_plugin.training.sentiment import (
    ClassifierSettings,
    TextBrain,
    VoiceBrain,
    check,
    evaluate,
    make_dataset,
    name_labels,
)
from spiritlm_plugin.training.trainer import train
from spiritlm_plugin.utils.recipes import load_recipe, run


def main(arguments):
    hparams, run_opts = load_recipe(arguments, ClassifierSettings)
    check(hparams)
    archive = STSPArchive(hparams["data_folder"])
    datasets = [
        make_dataset(hparams, archive, split)
        for split in ("train", "dev", "test")
    ]
    name_labels(hparams["model"])
    kind = VoiceBrain if hparams["modality"] == "speech" else TextBrain
    brain = kind(
        modules={"model": hparams["model"]},
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    train(brain, hparams, *datasets[:2])
    evaluate(brain, hparams, datasets[2])


if __name__ == "__main__":
    run(main)
